"""Patches: what is concatenated still adds up to the same update, and a patch survives storage to the bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.maths.low_rank import Patch, combine, from_tensors, to_tensors


def patch(seed, rank=2, scale=2.0, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    return Patch(
        torch.randn(rank, 4, dtype=dtype, generator=random), torch.randn(5, rank, dtype=dtype, generator=random), scale
    )


def equal(a, b):
    return torch.equal(a.down, b.down) and torch.equal(a.up, b.up) and a.scale == b.scale


def test_delta_is_scale_times_up_times_down():
    one = Patch(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]), 0.5)
    assert one.delta.tolist() == [[1.5, 3.0], [2.0, 4.0]]


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0.1, 8.0)), min_size=1, max_size=4))
def test_combined_slots_add_up(slots):
    made = [{"m": patch(i, rank, scale)} for i, (rank, scale) in enumerate(slots)]
    one = combine(made)["m"]
    assert one.down.shape[0] == sum(rank for rank, _ in slots)
    torch.testing.assert_close(one.delta, sum(slot["m"].delta for slot in made))


def test_a_weight_patched_once_keeps_its_factors_to_the_bit_and_slots_keep_their_order():
    a, b, c = patch(1), patch(2), patch(3, rank=1)
    combined = combine([{"x": a, "y": b}, {"y": c}])
    assert equal(combined["x"], a)
    assert torch.equal(combined["y"].down, torch.cat([b.down, c.down]))
    assert combined["y"].scale == 1.0
    assert combine([]) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_bring_patches_back_to_the_bit(dtype):
    made = {"a.b": patch(1, dtype=dtype, scale=1 / 3), "a": patch(2, dtype=dtype)}
    found = from_tensors(to_tensors(made))
    assert found.keys() == made.keys()
    assert all(equal(found[name], made[name]) for name in made)
