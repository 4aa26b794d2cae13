"""EWC: the pull of each weight is strength x its Fisher information x its distance, over one task and over several."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.step import Step
from perdure.methods.regularisation.ewc import Ewc
from tensors import tensor


def settled(at, gradients, asked=None):
    """A model at the weights `at` whose rows have these gradients, two to a batch."""

    def batches(rows, size, of):
        if asked is not None:
            asked.append((rows, size, of))
        return ({"w": gradients[i : i + 2]} for i in range(0, len(gradients), 2))

    return SimpleNamespace(params={"w": torch.nn.Parameter(at)}, gradients=batches)


def pulled(method, state, at, share=1.0):
    """The penalty and its gradient at the weights `at`."""
    w = at.clone().requires_grad_()
    term = method.loss(Step(0, 10, {"w": w}, share=share), state)
    return term.item(), torch.autograd.grad(term, w)[0]


def fisher(gradients):
    squares = gradients.square().mean(0)
    return squares / squares.mean()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.01, 100.0))
def test_each_weight_is_pulled_back_by_strength_times_fisher_times_distance(seed, strength):
    torch.manual_seed(seed)
    gradients, anchor, at = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 3), (3,), (3,)))
    method = Ewc(strength=strength)
    value, grad = pulled(method, method.measure(settled(anchor, gradients), {}), at)
    expected = strength * fisher(gradients) * (at - anchor)
    torch.testing.assert_close(grad, expected)
    assert value == pytest.approx(0.5 * (expected * (at - anchor)).sum().item())


def test_strength_means_the_same_whatever_the_scale_of_the_likelihood():
    gradients, anchor, at = tensor([1.0, 2.0], [3.0, 0.5]), tensor(0.0, 1.0), tensor(1.0, -1.0)
    one, other = (pulled(Ewc(), Ewc().measure(settled(anchor, k * gradients), {}), at)[1] for k in (1, 1000))
    torch.testing.assert_close(one, other)


def two_tasks(**fields):
    method = Ewc(strength=1.0, **fields)
    first, second = tensor([1.0, 2.0], [3.0, 0.0]), tensor([0.0, 1.0], [1.0, 1.0])
    a, b = tensor(1.0, -2.0), tensor(0.5, 3.0)
    state = method.measure(settled(b, second), method.measure(settled(a, first), {}))
    return method, state, (fisher(first), a), (fisher(second), b)


def test_offline_is_the_sum_of_one_penalty_a_task_each_with_its_own_anchor():
    method, state, *tasks = two_tasks(mode="offline")
    for at in (tensor(0.0, 0.0), tensor(4.0, -1.0), tasks[0][1]):
        value, grad = pulled(method, state, at)
        assert value == pytest.approx(sum(0.5 * (f * (at - anchor).square()).sum().item() for f, anchor in tasks))
        torch.testing.assert_close(grad, sum(f * (at - anchor) for f, anchor in tasks))


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_online_adds_up_decayed_information_around_the_last_weights(decay):
    """Schwarz et al., eq. 9."""
    method, state, (f, _), (g, last) = two_tasks(mode="online", decay=decay)
    at = tensor(4.0, -1.0)
    torch.testing.assert_close(pulled(method, state, at)[1], (decay * f + g) * (at - last))


def test_an_update_counts_it_once_over_all_its_micro_batches():
    method, state, *_ = two_tasks()
    whole, quarter = (pulled(method, state, tensor(1.0, 1.0), share)[0] for share in (1.0, 0.25))
    assert quarter == pytest.approx(whole / 4)


@pytest.mark.parametrize("labels", ["sampled", "data"])
def test_it_asks_for_the_gradients_of_the_new_rows(labels):
    asked = []
    Ewc(labels=labels, size=7).measure(settled(tensor(0.0), tensor([1.0]), asked), {})
    assert asked == [("new", 7, labels)]


def test_the_anchor_is_no_alias_of_the_weights():
    model = settled(tensor(1.0, 2.0), tensor([1.0, 1.0]))
    state = Ewc().measure(model, {})
    with torch.no_grad():
        model.params["w"].zero_()
    assert state["anchor.w"].tolist() == [1, 2]


def test_before_a_task_is_known_it_adds_nothing():
    assert Ewc().loss(Step(0, 10, {}), {}) is None


def test_no_strength_is_no_method():
    assert not Ewc(strength=0).active
