"""HLER: SI's importance of each weight, times the factor of its layer."""

import math
from types import SimpleNamespace

import pytest
import torch

from perdure.core.step import Step
from perdure.methods.regularisation.hler import Hler
from tensors import tensor

FIRST, SECOND = "model.layers.0.up.weight", "model.layers.1.up.weight"


def model(at):
    return SimpleNamespace(params={name: torch.nn.Parameter(value) for name, value in at.items()})


def kept(method=Hler()):
    """What is kept of a task of one update from zero, in which each weight moved by 1."""
    start = {FIRST: tensor(0.0, 0.0), SECOND: tensor(0.0, 0.0)}
    end = {name: value - 1 for name, value in start.items()}
    grads = {FIRST: tensor(1.0, 1.0), SECOND: tensor(3.0, 3.0)}
    step = Step(0, 1, end, before=start, task_grad=grads)
    return method.measure(model(end), method.watch(step, method.prepare(model(start), {}))), end


def test_importance_of_elements_is_the_path_integral_of_mean_one():
    state, _ = kept()
    torch.testing.assert_close(state[f"omega.{FIRST}"], tensor(0.5, 0.5))
    torch.testing.assert_close(state[f"omega.{SECOND}"], tensor(1.5, 1.5))
    assert len(state) == 2


def test_each_weight_is_pulled_by_strength_times_its_layers_factor_times_its_importance():
    """c = 2 softmax(0.5, 1.5), in Song et al., eq. 8, softmax of the layers' norms."""
    method = Hler(strength=0.2)
    state, end = kept(method)
    state = method.prepare(model(end), state)
    at = {name: tensor(1.0, 3.0).requires_grad_() for name in end}
    grads = torch.autograd.grad(method.loss(Step(0, 10, at), state), list(at.values()))
    low = 2 / (1 + math.e)
    for (name, grad), factor, omega in zip(zip(at, grads, strict=True), (low, 2 - low), (0.5, 1.5), strict=True):
        torch.testing.assert_close(grad, 0.2 * factor * omega * (at[name].detach() - end[name]))


def test_the_layers_factors_do_not_enter_what_is_kept():
    method = Hler()
    state, end = kept(method)
    begun = method.prepare(model(end), state)
    assert not torch.equal(begun[f"pull.{FIRST}"], begun[f"omega.{FIRST}"])
    still = method.measure(model(end), begun)  # a task that went nowhere
    assert all(torch.equal(still[key], value) for key, value in state.items())


def test_the_layers_factors_do_not_sharpen_as_tasks_add_up():
    state, end = kept()
    often = {key: 9 * value for key, value in state.items()}  # nine tasks like it
    once, more = (Hler().prepare(model(end), known)[f"pull.{FIRST}"] for known in (state, often))
    torch.testing.assert_close(more, 9 * once)


def test_in_the_first_task_it_adds_nothing():
    state = Hler().prepare(model({FIRST: tensor(1.0)}), {})
    assert Hler().loss(Step(0, 10, {FIRST: tensor(2.0)}), state) is None


def test_no_strength_is_no_method_and_no_damping_is_refused():
    assert not Hler(strength=0).active
    with pytest.raises(ValueError, match=r"damping\n.*greater than 0"):
        Hler(damping=0)
