"""InfLoRA: its A is the task's own inputs outside those of earlier tasks, so old outputs stay whatever B becomes."""

from dataclasses import replace

import pytest
import torch

from perdure.core.errors import BadSpec
from perdure.core.plan import Bare, SecondMoment
from perdure.core.settings import Settings
from perdure.maths.low_rank import Patch, to_tensors
from perdure.methods.adapters.inf_lora import InfLora
from streams import same

B_OF = {name: f"base_model.model.{name}.lora_B.new.weight" for name in ("q", "k", "o")}


class Inputs:
    """A model whose q and k read one input, and o another; rows by name are the inputs of q, and those of o in reverse."""

    def __init__(self, **rows):
        self.rows, self.params = rows, {name: torch.zeros(3, 2) for name in B_OF.values()}

    def moments(self, rows, modules, tokens="own", size=None):
        assert (tokens, size) == ("own", 256)
        if rows not in self.rows:
            return {}
        x = self.rows[rows]
        q = SecondMoment(x.T @ x / len(x), len(x))
        o = SecondMoment(q.mean.flip(0, 1), len(x))
        return {name: o if name == "o" else q for name in modules}


def bare(model, rank=2, slots=None, task="b", width=4):
    shapes = {name: (3, width) for name in B_OF}
    return Bare(task, 0, Settings(lora_r=rank), shapes, slots or {}, model)


def started(method, model, state=None, **more):
    return method.adapter(bare(model, **more), state or {}).start()


def inputs(seed, n=30, width=16, rank=6):
    torch.manual_seed(seed)
    return torch.randn(n, rank) @ torch.randn(rank, width)


def test_golden_with_the_first_input_number_protected_a_does_not_read_it():
    """Inputs of squared lengths 9, 4, 3 and 1 along the four numbers, the first two correlated: A is e2 and e3 over sqrt 3."""
    h = torch.tensor([[9.0, 2, 0, 0], [2, 4, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    model = Inputs(new=torch.linalg.cholesky(4 * h).T)
    found = started(InfLora(), model, {"basis/q": torch.tensor([[1.0, 0, 0, 0]])})
    torch.testing.assert_close(found["q"].down, torch.eye(4)[1:3] / 3**0.5)
    assert found["q"].down[:, 0].abs().max() < 1e-7
    assert found["q"].effects["outside"] == pytest.approx(8 / 17)
    assert found["k"].down is found["q"].down
    assert found["o"].effects["outside"] == pytest.approx(1)  # nothing is known of what o reads
    assert all((factors.up == 0).all() and factors.trains == "up" for factors in found.values())


def test_golden_what_is_kept_of_the_first_task_reaches_the_share():
    model = Inputs(new=torch.diag(torch.tensor([9.0, 4, 3, 1]).sqrt() * 2))
    kept = InfLora(energy=0.75).measure(model, {})  # of 17: 9 and 4 are 0.76
    assert kept.keys() == {"basis/q", "basis/o"}  # one for q and k
    torch.testing.assert_close(kept["basis/q"], torch.eye(4)[:2])
    torch.testing.assert_close(kept["basis/o"], torch.eye(4)[[3, 2]])
    more = InfLora(energy=0.95).measure(model, kept)
    torch.testing.assert_close(more["basis/q"], torch.eye(4)[:4])  # 16 of 17 are 0.94
    assert torch.equal(more["basis/q"][:2], kept["basis/q"])


def test_what_no_module_of_this_task_reads_stays_protected():
    kept = InfLora().measure(Inputs(new=inputs(0, width=4)), {"basis/v": torch.eye(4)[:1]})
    assert torch.equal(kept["basis/v"], torch.eye(4)[:1])


def learned(tasks, method=InfLora(energy=1.0)):
    """Return the A of each task, with the bases before it."""
    state, found = {}, []
    for x in tasks:
        model = Inputs(new=x)
        found.append((started(method, model, state, width=16), state))
        state = method.measure(model, state)
    return found


def test_a_is_orthogonal_to_old_inputs_so_that_no_b_changes_an_old_output():
    tasks = [inputs(seed) for seed in range(2)]
    (_, _), (factors, state) = learned(tasks)
    down, basis = factors["q"].down, state["basis/q"]
    assert (down @ basis.T).norm() <= 1e-5 * down.norm()
    torch.manual_seed(5)
    x = torch.randn(20, len(basis)) @ basis  # anything in the span of old inputs
    change = (x @ down.T) @ torch.randn(3, 2).T
    assert change.norm() <= 1e-5 * x.norm()
    assert ((tasks[0] @ down.T).norm() / (tasks[0].norm() * down.norm())).item() <= 1e-5
    assert (tasks[1] @ down.T).norm() > 0.1 * tasks[1].norm() * down.norm()  # and its own inputs pass


def test_a_random_a_would_change_old_outputs():
    """So the above is no matter of course."""
    torch.manual_seed(0)
    old, down = inputs(0), torch.randn(2, 16)
    assert (old @ down.T).norm() > 0.05 * old.norm() * down.norm()


def test_with_protect_base_the_first_task_stays_outside_the_inputs_of_general_rows_and_so_do_later_ones():
    method = InfLora(energy=1.0, protect="base")
    general, model = inputs(9, rank=3), Inputs(new=inputs(0), general=inputs(9, rank=3))
    for state in ({}, method.measure(model, {})):
        down = started(method, model, state, width=16)["q"].down
        assert (general @ down.T).norm() <= 1e-5 * general.norm()
    plain = started(InfLora(energy=1.0), model, width=16)["q"].down
    assert (general @ plain.T).norm() > 1e-2 * general.norm()


def test_protect_base_from_the_second_task_on_adds_the_inputs_of_general_rows_to_those_of_the_first():
    method, general = InfLora(energy=1.0, protect="base"), inputs(9, rank=3)
    model, first = (
        Inputs(new=inputs(0, rank=4), general=general),
        InfLora(energy=1.0).measure(Inputs(new=inputs(1, rank=2)), {}),
    )
    for state in (first, method.measure(model, first)):
        down = started(method, model, state, width=16)["q"].down
        assert (general @ down.T).norm() <= 1e-5 * general.norm()


def test_protect_base_without_general_rows_is_refused_with_what_to_do():
    with pytest.raises(BadSpec, match=r"this learn has none: name 'general'.*instruction_replay.*protect: tasks"):
        started(InfLora(protect="base"), Inputs(new=inputs(0)), width=16)


def test_where_earlier_tasks_take_the_room_the_count_is_in_the_error():
    state = {"basis/q": torch.eye(4)[:3]}
    with pytest.raises(
        BadSpec, match=r"of the 4 input directions of q the tasks before take 3, which leaves 1 for a rank of 2"
    ):
        started(InfLora(), Inputs(new=inputs(0, width=4)), state)


def test_a_task_that_is_learned_again_goes_on_with_its_a_and_trains_b():
    own = {name: Patch(torch.randn(2, 4), torch.randn(3, 2), 2.0) for name in B_OF}
    given = bare(Inputs(), slots={"sum:b": to_tensors(own), "sum:a": {}})
    plan = InfLora().adapter(given, {"basis/q": torch.eye(4)[:3]})
    assert (plan.slot, plan.beneath) == ("sum:b", ("sum:a",))
    for name, factors in plan.start().items():
        assert torch.equal(factors.down, own[name].down)
        assert torch.equal(factors.up, own[name].up)
        assert factors.trains == "up"


def test_the_plan_is_known_from_names_before_a_model_is_loaded():
    given = replace(bare(None), shapes={}, slots={"sum:a": {}})
    plan = InfLora().adapter(given, {})
    assert (plan.slot, plan.beneath) == ("sum:b", ("sum:a",))
    assert plan.start is not None


def test_what_is_measured_twice_has_the_same_bits():
    model = Inputs(new=inputs(0))
    assert same(InfLora().measure(model, {}), InfLora().measure(model, {}))
