"""Two blocks: what lies under a task is frozen to the bit, what trains over it is stored by itself, and both are one adapter."""

import pytest
import torch

from perdure.bridges.runtime import Runtime
from perdure.core.errors import BadSpec
from perdure.core.plan import AdapterPlan, Factors
from perdure.core.settings import Settings
from perdure.maths.low_rank import Patch, combine, from_tensors, to_tensors
from streams import same

SETTINGS = Settings(lora_r=4, lora_alpha=8, weight_decay=0.1)
OVER = AdapterPlan("sum:b", ("skill",))
IDS = torch.arange(20)[None]


@pytest.fixture
def runtime(tiny_model) -> Runtime:
    return Runtime(tiny_model, "float32", "cpu")


@pytest.fixture
def old(runtime) -> dict[str, torch.Tensor]:
    """An adapter of an earlier task, all of it different from zero."""
    generator = torch.Generator().manual_seed(1)
    shapes = runtime.shapes(SETTINGS)
    return to_tensors(
        {
            name: Patch(torch.randn(4, cols, generator=generator), torch.randn(rows, 4, generator=generator), 0.05)
            for name, (rows, cols) in shapes.items()
        }
    )


def trained(runtime, params, steps=20):
    """Train with momentum and decay, which move also what has no gradient."""
    optimizer = torch.optim.AdamW(params.values(), lr=1e-2, weight_decay=0.1)
    runtime.model.train()
    for _ in range(steps):
        runtime.model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    runtime.freeze()


def logits(runtime):
    with torch.no_grad(), runtime.precision():
        return runtime.model(input_ids=IDS).logits


def test_what_lies_under_a_task_keeps_its_bits_and_what_trains_is_stored_alone(runtime, old):
    params = runtime.begin(OVER, {"skill": old}, SETTINGS, 0, "b")
    assert all(".new." in name for name in params)
    start = runtime.trained()
    base = {name: value.clone() for name, value in runtime.model.named_parameters() if name not in params}
    trained(runtime, params)
    assert same({name: value for name, value in runtime.model.named_parameters() if name not in params}, base)
    own = runtime.trained()
    assert own.keys() == start.keys() == old.keys()
    assert not same(own, start)
    runtime.load({"skill": old, "sum:b": own})
    whole = from_tensors(runtime.skill())
    for name, patch in combine([from_tensors(old), from_tensors(own)]).items():
        assert torch.equal(whole[name].down, patch.down)
        assert torch.equal(whole[name].up, patch.up)


def test_the_stored_form_computes_what_the_two_blocks_computed(runtime, old):
    params = runtime.begin(OVER, {"skill": old}, SETTINGS, 0, "b")
    trained(runtime, params)
    two = logits(runtime)
    runtime.load({"skill": old, "sum:b": runtime.trained()})
    torch.testing.assert_close(logits(runtime), two, rtol=1e-4, atol=1e-5)
    runtime.load({"skill": old})
    assert (logits(runtime) - two).abs().max() > 1e-3


def test_a_frozen_block_that_is_left_trainable_is_moved(runtime, old):
    """The break: the test above would see it."""
    runtime.begin(OVER, {"skill": old}, SETTINGS, 0, "b")
    for name, value in runtime.model.named_parameters():
        value.requires_grad_("lora_" in name)
    params = {name: value for name, value in runtime.model.named_parameters() if value.requires_grad}
    trained(runtime, params)
    runtime.model.delete_adapter("new")
    assert not same(runtime.skill(), old)


def test_with_nothing_under_it_a_task_starts_as_a_first_one_does(runtime):
    first = runtime.begin(AdapterPlan(), {}, SETTINGS, 0, "b")
    alone = {name: value.clone() for name, value in first.items()}
    runtime.load({})
    again = runtime.begin(AdapterPlan("task:b", ("skill",)), {}, SETTINGS, 0, "b")
    assert same(again, alone)


def test_over_frozen_blocks_the_fresh_factors_are_those_of_a_first_task(runtime, old):
    runtime.begin(AdapterPlan(), {}, SETTINGS, 0, "b")
    first = runtime.trained()
    runtime.begin(OVER, {"skill": old}, SETTINGS, 0, "b")
    assert same(runtime.trained(), first)


def test_a_slot_goes_on_from_its_own_content_and_refuses_another_rank(runtime, old):
    own = runtime.begin(OVER, {"skill": old}, SETTINGS, 0, "b") and runtime.trained()
    runtime.begin(OVER, {"skill": old, "sum:b": old}, SETTINGS.model_copy(update={"lora_alpha": 0.2}), 0, "b")
    assert same(runtime.trained(), old)
    assert not same(old, own)
    with pytest.raises(BadSpec, match=r"differ from the adapter that head goes on training \(14 modules, rank 4"):
        runtime.begin(OVER, {"skill": old, "sum:b": old}, SETTINGS.model_copy(update={"lora_r": 8}), 0, "b")


def test_a_plan_may_bring_the_factors_and_say_which_train(runtime, old):
    name, (rows, cols) = next(iter(runtime.shapes(SETTINGS).items()))
    factors = Factors(torch.full((4, cols), 0.5), torch.zeros(rows, 4), trains="up")
    params = runtime.begin(AdapterPlan("sum:b", ("skill",), lambda: {name: factors}), {"skill": old}, SETTINGS, 0, "b")
    mine = [param for param in params if param.startswith(f"base_model.model.{name}.")]
    assert mine == [f"base_model.model.{name}.lora_B.new.weight"]
    assert (runtime.trained()[f"{name}.down"] == 0.5).all()


def test_the_base_can_be_queried_while_two_blocks_are_there(runtime, old):
    bare = logits(runtime)
    params = runtime.begin(OVER, {"skill": old}, SETTINGS, 0, "b")
    with runtime.bare():
        assert torch.equal(logits(runtime), bare)
    assert all(value.requires_grad for value in params.values())
    assert not torch.equal(logits(runtime), bare)
