"""SI: importance is what a weight's own moves took off the task loss, over how far it went."""

from types import SimpleNamespace

import pytest
import torch

from perdure.core.step import Step
from perdure.methods.regularisation.si import Si
from tensors import tensor


def model(at):
    return SimpleNamespace(params={"w": torch.nn.Parameter(at)})


def followed(method, state, start, moves):
    """The state after a task from `start` whose updates were `moves`, (task gradient, step) each, and its last weights."""
    at, state = start, method.prepare(model(start), state)
    for index, (grad, move) in enumerate(moves):
        step = Step(index, len(moves), {"w": at + move}, before={"w": at}, task_grad={"w": grad})
        state, at = method.watch(step, state), at + move
    return method.measure(model(at), state), at


MOVES = [
    (tensor(1.0, -2.0, 1.0), tensor(-1.0, 1.0, 0.5)),
    (tensor(0.5, -1.0, 2.0), tensor(-1.0, 1.0, 0.5)),
]


def test_importance_is_the_sum_of_gradient_times_step_over_the_squared_way():
    """By hand: omega = (1.5, 3, -1.5), Delta = (-2, 2, 1), xi = 1 x mean(Delta^2) = 3."""
    state, _ = followed(Si(), {}, tensor(0.0, 0.0, 0.0), MOVES)
    raw = tensor(1.5 / 7, 3 / 7, 0.0)  # a weight whose moves raised the loss has no importance
    torch.testing.assert_close(state["omega.w"], raw / raw.mean())
    assert set(state) == {"omega.w"}


def test_steps_there_and_back_count_by_what_they_gained_not_by_the_way_that_is_left():
    moves = [(tensor(1.0, 1.0), tensor(-2.0, -1.0)), (tensor(-1.0, 0.0), tensor(1.0, 0.0))]
    state, _ = followed(Si(damping=1e-6), {}, tensor(0.0, 0.0), moves)
    torch.testing.assert_close(state["omega.w"], tensor(1.5, 0.5), rtol=1e-5, atol=0)  # 3 / 1 and 1 / 1


def test_importance_adds_up_over_tasks_and_the_path_begins_anew():
    """The classic bug is `=` for `+=`."""
    once, at = followed(Si(), {}, tensor(0.0, 0.0, 0.0), MOVES)
    twice, _ = followed(Si(), once, at, MOVES)
    torch.testing.assert_close(twice["omega.w"], 2 * once["omega.w"])


def test_each_weight_is_pulled_back_by_strength_times_importance_times_distance():
    method = Si(strength=0.3)
    kept, last = followed(method, {}, tensor(0.0, 0.0, 0.0), MOVES)
    state = method.prepare(model(last), kept)
    at = tensor(1.0, 2.0, 3.0).requires_grad_()
    (grad,) = torch.autograd.grad(method.loss(Step(0, 10, {"w": at}), state), at)
    torch.testing.assert_close(grad, 0.3 * kept["omega.w"] * (at.detach() - last))


def test_in_the_first_task_it_adds_nothing():
    state = Si().prepare(model(tensor(1.0)), {})
    assert Si().loss(Step(0, 10, {"w": tensor(2.0)}), state) is None


def test_the_task_gradient_alone_counts():
    assert Si.needs == ("before", "task_grad")


def test_no_strength_is_no_method_and_no_damping_is_refused():
    assert not Si(strength=0).active
    with pytest.raises(ValueError, match=r"damping\n.*greater than 0"):
        Si(damping=0)
