"""L2: half the squared distance from the start and from the last task's weights, of a LoRA pair that of the product."""

from types import SimpleNamespace

import pytest
import torch

from perdure.core.step import Step
from perdure.methods.regularisation.l2 import L2

A, B, PLAIN = "q.lora_A.default.weight", "q.lora_B.default.weight", "norm.weight"


def weights(seed):
    torch.manual_seed(seed)
    shapes = {A: (2, 5), B: (4, 2), PLAIN: (3,)}
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def model(at, first=False):
    return SimpleNamespace(params={name: torch.nn.Parameter(value) for name, value in at.items()}, first=first)


def penalty(method, state, at):
    leaves = {name: value.clone().requires_grad_() for name, value in at.items()}
    term = method.loss(Step(0, 10, leaves), state)
    return term, dict(zip(leaves, torch.autograd.grad(term, list(leaves.values())), strict=True))


def expected(at, anchor, product):
    """Value and gradient of 1/2 ||B A - product||^2 + 1/2 ||w - anchor||^2."""
    gap, off = at[B] @ at[A] - product, at[PLAIN] - anchor
    value = 0.5 * (gap.square().sum() + off.square().sum())
    return value, {A: at[B].T @ gap, B: gap @ at[A].T, PLAIN: off}


def after_one_task(method, start, last):
    """The state in which the second task begins, at `last`."""
    return method.prepare(model(last), method.measure(model(last), method.prepare(model(start, first=True), {})))


def test_the_start_is_the_base_model_for_a_lora_pair_and_the_first_weights_for_others():
    start, last, at = weights(0), weights(1), weights(2)
    method = L2(strength=2.0, anchor="start")
    zero = torch.zeros(4, 5, dtype=torch.float64)
    for state in (method.prepare(model(start), {}), after_one_task(method, start, last)):
        term, grads = penalty(method, state, at)
        value, pulls = expected(at, start[PLAIN], zero)
        torch.testing.assert_close(term, 2.0 * value)
        torch.testing.assert_close(grads, {name: 2.0 * pull for name, pull in pulls.items()})


def test_previous_is_what_the_last_task_left():
    last, at = weights(1), weights(2)
    method = L2(strength=0.5, anchor="previous")
    term, grads = penalty(method, after_one_task(method, weights(0), last), at)
    value, pulls = expected(at, last[PLAIN], last[B] @ last[A])
    torch.testing.assert_close(term, 0.5 * value)
    torch.testing.assert_close(grads, {name: 0.5 * pull for name, pull in pulls.items()})


def test_both_is_the_sum():
    start, last, at = weights(0), weights(1), weights(2)
    found = {}
    for anchor in ("start", "previous", "both"):
        method = L2(anchor=anchor)
        found[anchor] = penalty(method, after_one_task(method, start, last), at)[0]
    torch.testing.assert_close(found["both"], found["start"] + found["previous"])


def test_factors_that_make_the_same_product_are_not_pulled():
    """Plain ||A - A*||^2 + ||B - B*||^2 would pull them, though the model is the same."""
    last = weights(1)
    turn = torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    at = {**last, B: last[B] @ turn, A: torch.linalg.solve(turn, last[A])}
    method = L2(anchor="previous")
    _, grads = penalty(method, after_one_task(method, weights(0), last), at)
    assert all(grad.norm().item() == pytest.approx(0, abs=1e-12) for grad in grads.values())


def test_in_the_first_task_only_the_start_pulls():
    state = L2(anchor="previous").prepare(model(weights(0), first=True), {})
    assert L2(anchor="previous").loss(Step(0, 10, weights(1)), state) is None
    one, both = (L2(anchor=a) for a in ("start", "both"))
    terms = [penalty(m, m.prepare(model(weights(0), first=True), {}), weights(1))[0] for m in (one, both)]
    torch.testing.assert_close(*terms)


def test_it_holds_from_the_first_task_it_sees_when_others_went_before():
    state = L2(strength=1.0).prepare(model(weights(0)), {})
    term, _ = penalty(L2(strength=1.0), state, weights(1))
    torch.testing.assert_close(term, expected(weights(1), weights(0)[PLAIN], weights(0)[B] @ weights(0)[A])[0])


def test_it_keeps_only_what_no_later_task_could_know():
    method = L2(anchor="both")
    kept = method.measure(model(weights(1)), method.prepare(model(weights(0)), {}))
    assert set(kept) == {f"start.{PLAIN}"}
    torch.testing.assert_close(kept[f"start.{PLAIN}"], weights(0)[PLAIN])


def test_no_strength_is_no_method():
    assert not L2(strength=0).active
