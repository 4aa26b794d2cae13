"""Tail average: the arithmetic mean of the weights over the last share of the updates."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.step import Step
from perdure.methods.weights_over_time.tail_average import TailAverage


def settled(path, share, dtype=torch.float64):
    """Settle on the weights `path` (one tensor an update) and return what is written, and the state that is left."""
    method, state = TailAverage(share=share), {}
    for index, value in enumerate(path):
        state = method.watch(Step(index, len(path), {"w": torch.nn.Parameter(value.to(dtype))}), state)
    return method.settle(SimpleNamespace(params={"w": path[-1].to(dtype)}), state)


@settings(max_examples=40)
@given(st.integers(1, 30), st.sampled_from([0.1, 0.25, 0.5, 1.0]), st.integers(0, 10**6))
def test_it_is_the_arithmetic_mean_of_the_tail(updates, share, seed):
    torch.manual_seed(seed)
    path = [torch.randn(2, 3, dtype=torch.float64) for _ in range(updates)]
    tail = round(share * updates)
    values, state = settled(path, share)
    if tail:
        torch.testing.assert_close(values["w"], torch.stack(path[-tail:]).mean(0), rtol=1e-5, atol=1e-6)
    else:
        assert values == {}
    assert state == {}


def test_it_keeps_the_mean_in_float32_and_writes_the_weights_own_dtype():
    method = TailAverage(share=1.0)
    w = {"w": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    state = method.watch(Step(0, 1, w), {})
    assert state["mean.w"].dtype == torch.float32
    assert method.settle(SimpleNamespace(params=w), state)[0]["w"].dtype == torch.bfloat16


def test_equal_weights_average_to_themselves_to_the_bit():
    value = torch.randn(5)
    assert torch.equal(settled([value] * 7, 1.0, torch.float32)[0]["w"], value)


def test_before_the_tail_it_keeps_nothing():
    assert TailAverage(share=0.5).watch(Step(4, 10, {"w": torch.nn.Parameter(torch.ones(1))}), {}) == {}


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match=r"share\n.*(less|greater) than or equal to"):
        TailAverage(share=share)


def test_no_share_is_no_method():
    assert not TailAverage(share=0).active
