"""N-LoRA: collisions of updates, their gradient, and that any shape will do."""

from types import SimpleNamespace

import pytest
import torch

from perdure.core.step import Step
from perdure.maths.low_rank import Patch, to_tensors
from perdure.methods.adapters.n_lora import NLora, collision

A = "base_model.model.q.lora_A.new.weight"
B = "base_model.model.q.lora_B.new.weight"


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state(*old, module="q", scale=1.0):
    """Return what a task whose adapter has this scale begins with after tasks with these (down, up, scale)."""
    slots = {f"sum:{i}": to_tensors({module: Patch(*factors)}) for i, factors in enumerate(old)}
    return NLora().prepare(SimpleNamespace(slots=slots, params={A: torch.zeros(1)}, scale=scale), {})


def penalty(down, up, known, strength=1.0):
    return NLora(strength=strength).loss(Step(0, 1, {A: down, B: up}), known)


def test_golden_the_penalty_is_the_papers_sum_weighed_by_what_was_there():
    """Old update ((2, 0), (-4, 0)); new one ((1, 3), (0, 5)) at scale 1: collision 2 x 1 over ||old||^2 = 20; twice that at 2."""
    old = (torch.tensor([[1.0, 0]]), torch.tensor([[1.0], [-2]]), 2.0)
    down, up = torch.eye(2), torch.tensor([[1.0, 3], [0, 5]])
    assert penalty(down, up, state(old), strength=0.5).item() == pytest.approx(0.5 * 2 / 20)
    assert penalty(down, up, state(old, scale=2.0), strength=0.5).item() == pytest.approx(0.5 * 4 / 20)


def test_it_is_zero_where_no_entry_is_changed_twice_and_one_where_an_update_is_repeated():
    down, up = drawn(2, 6), drawn(4, 2, seed=1)
    other = down * torch.tensor([0, 0, 0, 1.0, 1, 1])
    apart = drawn(2, 6, seed=2) * torch.tensor([1.0, 1, 1, 0, 0, 0])
    assert penalty(apart, up, state((other, up, 2.0))).item() == 0
    for scale in (1.0, 2.0, 4.0):
        assert penalty(down, up, state((down, up, scale), scale=scale)).item() == pytest.approx(1, rel=1e-5)


def test_it_depends_neither_on_the_number_of_tasks_and_modules_nor_on_a_scale_that_all_updates_share():
    down, up, old = drawn(2, 6), drawn(4, 2, seed=1), (drawn(3, 6, seed=2), drawn(4, 3, seed=3), 2.0)
    one = penalty(down, up, state(old)).item()
    assert penalty(down, up, state(old, old, old)).item() == pytest.approx(one, rel=1e-5)
    assert penalty(down, 7 * up, state((old[0], 7 * old[1], old[2]))).item() == pytest.approx(one, rel=1e-5)
    assert penalty(down, up, state((*old[:2], 7 * old[2]), scale=7.0)).item() == pytest.approx(one, rel=1e-5)
    p = A.replace(".q.", ".p."), B.replace(".q.", ".p.")
    both = NLora().loss(Step(0, 1, {A: down, B: up, p[0]: down, p[1]: up}), state(old) | state(old, module="p"))
    assert both.item() == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 5)])
def test_its_gradient_is_that_of_the_formula_whatever_the_shape_of_the_weight(shape):
    *experts, out, width = shape
    old = [(drawn(*experts, r, width, seed=r), drawn(*experts, out, r, seed=9 + r)) for r in (1, 4)]
    down, up = drawn(*experts, 2, width), drawn(*experts, out, 2, seed=1)
    grads = []
    for of in (collision, lambda a, b, pairs: (sum((v @ u).abs() for u, v in pairs) * (b @ a).abs()).sum()):
        leaves = [value.clone().double().requires_grad_(True) for value in (down, up)]
        pairs = [(a.double(), b.double()) for a, b in old]
        value = of(*leaves, pairs)
        grads.append((value, *torch.autograd.grad(value, leaves)))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected)


def test_at_its_start_where_b_is_zero_it_is_zero_and_so_is_its_gradient():
    leaves = [drawn(2, 6).requires_grad_(True), torch.zeros(4, 2).requires_grad_(True)]
    value = penalty(*leaves, state((drawn(3, 6, seed=2), drawn(4, 3, seed=3), 2.0)))
    assert value.item() == 0
    assert all((grad == 0).all() for grad in torch.autograd.grad(value, leaves))


def test_without_earlier_adapters_or_with_one_that_is_zero_there_is_no_penalty():
    assert penalty(drawn(2, 6), drawn(4, 2), state()) is None
    assert state((drawn(2, 6), torch.zeros(4, 2), 2.0)) == {}
