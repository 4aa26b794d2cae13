"""Exponential moving average: the closed form of the slow weights, and that they are not the fast ones."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.step import Step
from perdure.methods.weights_over_time.ema import Ema


def settled(start, path, decay, first=False):
    method = Ema(decay=decay)
    state = method.prepare(SimpleNamespace(params={"w": torch.nn.Parameter(start)}, first=first), {})
    for index, value in enumerate(path):
        state = method.watch(Step(index, len(path), {"w": torch.nn.Parameter(value)}), state)
    values, left = method.settle(SimpleNamespace(params={"w": path[-1]}), state)
    assert left == {}
    return values["w"]


@settings(max_examples=30)
@given(st.integers(1, 20), st.floats(0.05, 0.95), st.integers(0, 10**6))
def test_each_update_counts_decay_to_the_power_of_its_age_and_the_start_the_rest(updates, decay, seed):
    torch.manual_seed(seed)
    start, *path = torch.randn(updates + 1, 3, dtype=torch.float64)
    expected = decay**updates * start
    for index, value in enumerate(path):
        expected = expected + (1 - decay) * decay ** (updates - 1 - index) * value
    torch.testing.assert_close(settled(start, path, decay), expected, rtol=1e-4, atol=1e-5)


def test_in_the_first_task_the_start_does_not_count():
    start, path = torch.full((2,), 100.0), [torch.ones(2), torch.full((2,), 3.0)]
    torch.testing.assert_close(settled(start, path, 0.75, first=True), torch.full((2,), 0.75 * 1 + 0.25 * 3))


def test_the_slow_weights_are_not_the_fast_ones_and_the_fast_ones_stay():
    method, fast = Ema(decay=0.9), torch.nn.Parameter(torch.ones(2))
    state = method.prepare(SimpleNamespace(params={"w": torch.nn.Parameter(torch.zeros(2))}, first=False), {})
    state = method.watch(Step(0, 1, {"w": fast}), state)
    torch.testing.assert_close(state["slow.w"], torch.full((2,), 0.1))
    assert fast.eq(1).all()


def test_it_averages_in_float32_and_writes_the_weights_own_dtype():
    w = torch.ones(2, dtype=torch.bfloat16)
    assert settled(w, [w], 0.5).dtype == torch.bfloat16
    state = Ema().watch(Step(0, 1, {"w": torch.nn.Parameter(w)}), {})
    assert state["slow.w"].dtype == torch.float32


def test_a_decay_of_one_is_refused_and_none_is_no_method():
    with pytest.raises(ValueError, match="less than 1"):
        Ema(decay=1.0)
    assert not Ema(decay=0).active
