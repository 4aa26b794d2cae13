"""O-LoRA: the share of the new rows in the old row space, its gradient, and the exact form under AdamW."""

from types import SimpleNamespace

import pytest
import torch

from perdure.core.errors import BadSpec
from perdure.core.plan import Bare
from perdure.core.settings import Settings
from perdure.core.step import Step
from perdure.maths.low_rank import Patch, to_tensors
from perdure.maths.projection import row_basis
from perdure.methods.adapters.o_lora import OLora
from streams import same

A = "base_model.model.q.lora_A.new.weight"
B = "base_model.model.q.lora_B.new.weight"
OLD = torch.tensor([[1.0, 0, 0], [1, 0, 0]])  # two rows, one direction
STATE = {"basis/q": row_basis(OLD)}


def slots(down=OLD, up=None):
    return {"sum:a": to_tensors({"q": Patch(down, torch.ones(2, len(down)) if up is None else up, 2.0)})}


def bare(rank=2, width=3, before=None, task="b"):
    settings = Settings(lora_r=rank)
    return Bare(task, 0, settings, {"q": (2, width)}, slots() if before is None else before)


def penalty(rows, strength=1.0, state=STATE):
    rows = rows.clone().requires_grad_(True)
    term = OLora(strength=strength).loss(Step(0, 1, {A: rows, B: torch.ones(2, 2)}), state)
    (grad,) = torch.autograd.grad(term, rows)
    return term.item(), grad


def test_golden_the_penalty_is_the_share_of_the_rows_that_lies_in_the_old_space():
    """Rows (3, 4, 0) and (0, 0, 2): shares 9/25 and 0."""
    value, grad = penalty(torch.tensor([[3.0, 4, 0], [0, 0, 2]]), strength=0.5)
    assert value == pytest.approx(0.5 * (9 / 25 + 0) / 2)
    # d(x^2/(x^2+y^2)) = (2xy^2, -2x^2y) / (x^2+y^2)^2, halved by the mean over rows and again by the strength
    torch.testing.assert_close(grad, torch.tensor([[2 * 3 * 16, -2 * 9 * 4, 0], [0, 0, 0]]) / 625 / 4)


def test_it_is_zero_where_all_rows_are_orthogonal_and_one_where_they_lie_in_the_old_space():
    assert penalty(torch.tensor([[0.0, 4, 1], [0, 0, 2]]))[0] == pytest.approx(0, abs=1e-12)
    assert penalty(torch.tensor([[5.0, 0, 0], [-1, 0, 0]]))[0] == pytest.approx(1)


def test_it_gains_nothing_by_shrinking_the_rows():
    rows = torch.tensor([[3.0, 4, 1], [1, 1, 2]])
    assert penalty(rows)[0] == pytest.approx(penalty(rows / 1000)[0], rel=1e-5)


def test_without_earlier_adapters_it_adds_nothing_masks_nothing_and_holds_nothing():
    step, method = Step(0, 1, {A: torch.ones(2, 3)}), OLora(exact=True)
    assert OLora().loss(step, {}) is None
    assert same(method.mask({A: torch.ones(2, 3)}, {}), {A: torch.ones(2, 3)})
    assert method.hold(step, {}) == {}
    assert method.adapter(bare(before={}), {}).start is None


def trained(hold, steps=60):
    """Rows that momentum and decay move, pulled towards the old space."""
    torch.manual_seed(0)
    old, width = torch.randn(8, 32), 32
    basis = {"basis/q": row_basis(old)}
    method = OLora(exact=True)
    start = method.adapter(bare(4, width, slots(old, torch.ones(2, 8))), {}).start()["q"]
    rows = start.down.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([rows], lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        grads = {A: 2 * (rows.detach() - old[:4]) + torch.randn(4, width)}
        rows.grad = method.mask(grads, basis)[A]
        optimizer.step()
        with torch.no_grad():
            for value in method.hold(Step(0, 1, {A: rows}), basis).values() if hold else ():
                rows.copy_(value)
    assert (rows - start.down).norm() > 0.1  # it did learn
    return ((rows @ old.T).norm() / (rows.norm() * old.norm())).item()


def test_exact_keeps_the_rows_orthogonal_under_adamw():
    assert trained(hold=True) < 1e-5


def test_without_hold_the_optimizer_leaves_the_free_space():
    assert trained(hold=False) > 1e-3


def test_exact_starts_outside_the_old_space_with_keyed_rows_and_refuses_when_none_is_left():
    start = OLora(exact=True).adapter(bare(), {}).start()["q"]
    assert (start.down @ OLD.T).abs().max() < 1e-6
    assert (start.up == 0).all()
    again, other = (OLora(exact=True).adapter(bare(task=task), {}).start()["q"].down for task in ("b", "c"))
    assert torch.equal(start.down, again)
    assert not torch.equal(start.down, other)
    with pytest.raises(
        BadSpec, match=r"of the 3 input directions of q the earlier adapters take 1, which leaves 2 for a rank of 3"
    ):
        OLora(exact=True).adapter(bare(rank=3), {}).start()


def test_a_task_that_is_learned_again_goes_on_from_its_own_adapter():
    plan = OLora(exact=True).adapter(bare(before={**slots(), "sum:b": slots()["sum:a"]}), {})
    assert (plan.slot, plan.beneath, plan.start) == ("sum:b", ("sum:a",), None)


def gone_on(down, up, exact=True):
    """Prepare the update of a task whose adapter has these factors, beside one of rows along e1."""
    seen = SimpleNamespace(task="b", slots=slots(), params={A: down, B: up})
    return OLora(exact=exact).prepare(seen, {})


def test_exact_refuses_to_go_on_with_an_adapter_that_its_first_hold_would_cut():
    down, up = torch.tensor([[3.0, 4, 0], [0, 0, 2]]), torch.ones(2, 2)
    cut = OLora(exact=True).hold(Step(0, 1, {A: down, B: up}), STATE)[A]
    assert (up @ (down - cut)).norm() > 0.5 * (up @ down).norm()
    with pytest.raises(
        BadSpec, match=r"cannot go on with the adapter of b: 56% of .*q.lora_A.* would be cut.*revert b"
    ):
        gone_on(down, up)
    assert gone_on(down, up, exact=False).keys() == {"basis/q"}


def test_exact_goes_on_with_what_it_held_and_with_what_has_learned_nothing():
    assert gone_on(torch.tensor([[1e-6, 4, 0], [0, 0, 2]]), torch.ones(2, 2)).keys() == {"basis/q"}
    assert gone_on(torch.tensor([[3.0, 4, 0], [0, 0, 2]]), torch.zeros(2, 2)).keys() == {"basis/q"}
