"""MAS: importance is the mean size of the gradient of the outputs' squared norm, added up over tasks."""

from types import SimpleNamespace

import torch

from perdure.core.step import Step
from perdure.methods.regularisation.mas import Mas
from tensors import tensor


def model(at, gradients=None, asked=None):
    def batches(rows, size, of):
        if asked is not None:
            asked.append((rows, size, of))
        return [{"w": gradients}]

    return SimpleNamespace(params={"w": torch.nn.Parameter(at)}, gradients=batches)


def test_each_weight_is_pulled_back_by_the_mean_size_of_its_gradients_of_mean_one():
    """Of a linear output F = w x the gradient of ||F||^2 is 2 (w . x) x (Aljundi et al., section 4.1)."""
    w, x = tensor(1.0, -2.0), tensor([1.0, 1.0], [2.0, 0.5], [0.0, 3.0])
    sizes = (2 * (x @ w)[:, None] * x).abs().mean(0)
    method = Mas(strength=0.5)
    state = method.prepare(model(w), method.measure(model(w, 2 * (x @ w)[:, None] * x), {}))
    at = tensor(3.0, 3.0).requires_grad_()
    (grad,) = torch.autograd.grad(method.loss(Step(0, 10, {"w": at}), state), at)
    torch.testing.assert_close(grad, 0.5 * sizes / sizes.mean() * (at.detach() - w))


def test_rows_that_pull_both_ways_do_not_cancel():
    state = Mas().measure(model(tensor(0.0, 0.0), tensor([5.0, 1.0], [-5.0, 1.0])), {})
    torch.testing.assert_close(state["omega.w"], tensor(5 / 3, 1 / 3))


def test_importance_adds_up_and_the_anchor_is_the_last_weights():
    first = Mas().measure(model(tensor(0.0, 0.0), tensor([3.0, 1.0])), {})
    second = Mas().measure(model(tensor(1.0, 1.0), tensor([1.0, 1.0])), first)
    torch.testing.assert_close(second["omega.w"], tensor(2.5, 1.5))
    begun = model(tensor(7.0, 8.0))
    state = Mas().prepare(begun, second)
    with torch.no_grad():
        begun.params["w"].zero_()
    assert state["anchor.w"].tolist() == [7, 8]


def test_it_asks_for_the_outputs_of_the_new_rows():
    asked = []
    Mas(size=9).measure(model(tensor(1.0), tensor([1.0]), asked), {})
    assert asked == [("new", 9, "outputs")]


def test_before_a_task_is_known_it_adds_nothing():
    state = Mas().prepare(model(tensor(1.0)), {})
    assert Mas().loss(Step(0, 10, {"w": tensor(1.0)}), state) is None
    assert not Mas(strength=0).active
