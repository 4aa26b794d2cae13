"""Where a task's adapter ends, and what lies frozen under it."""

import pytest

from perdure.core.plan import Bare, module_of_down, module_of_up, shared_plan, sum_plan, task_plan
from perdure.core.settings import Settings

HEAD = {name: {} for name in ("skill", "sum:a", "route", "task:c", "task:c/skill", "dense")}


def bare(task, slots=HEAD):
    return Bare(task, 0, Settings(), {}, slots)


@pytest.mark.parametrize(
    ("plan", "slot", "beneath"),
    [
        (shared_plan(bare("b")), "skill", ("dense", "sum:a")),
        (sum_plan(bare("b")), "sum:b", ("dense", "skill", "sum:a")),
        (sum_plan(bare("a")), "sum:a", ("dense", "skill")),
        (task_plan(bare("b")), "task:b", ("dense", "skill", "sum:a")),
        (task_plan(bare("b"), "base"), "task:b", ()),
        (task_plan(bare("c")), "task:c", ("task:c/skill",)),
        (shared_plan(bare("b", {})), "skill", ()),
    ],
)
def test_what_each_plan_names(plan, slot, beneath):
    assert (plan.slot, plan.beneath, plan.start) == (slot, beneath, None)


def test_the_module_of_an_a_is_read_from_its_parameter_and_no_other_has_one():
    assert module_of_down("base_model.model.layers.0.q.lora_A.new.weight") == "layers.0.q"
    assert module_of_down("base_model.model.layers.0.q.lora_B.new.weight") is None
    assert module_of_down("fc.weight") is None
    assert module_of_down("base_model.model.layers.0.experts.lora_up.lora_A.new.weight") == "layers.0.experts.up"


def test_the_module_of_a_b_is_read_from_its_parameter():
    assert module_of_up("base_model.model.layers.0.experts.lora_up.lora_B.new.weight") == "layers.0.experts.up"
    assert module_of_up("base_model.model.layers.0.q.lora_A.new.weight") is None
