"""Truncation is the best there is, and what only changes the shape of factors leaves the update as it was."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.maths.low_rank import Patch, relative_error, truncate, uniform


def patch(rank: int, seed: int, scale: float = 2.0, out: int = 7, into: int = 5) -> Patch:
    random = torch.Generator().manual_seed(seed)
    return Patch(torch.randn(rank, into, generator=random), torch.randn(out, rank, generator=random), scale)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_truncation_leaves_exactly_the_smallest_singular_values_out(rank, kept, seed):
    whole = patch(rank, seed)
    cut = truncate(whole, kept)
    assert (
        cut.down.shape[0] == cut.up.shape[1] == (rank if rank <= kept else min(kept, 5))
    )  # 5: the smaller side of the weight
    values = torch.linalg.svdvals(whole.delta.double())
    lost = (values[kept:].square().sum() / values.square().sum()).sqrt().item()
    assert relative_error({"m": whole}, {"m": cut}) == pytest.approx(lost, abs=1e-6)
    assert (cut.scale, cut.up.dtype) == (whole.scale, whole.up.dtype)


def test_a_patch_that_is_small_enough_comes_back_itself():
    small = patch(3, 0)
    assert truncate(small, 3) is small


def test_the_error_is_relative_to_all_weights_together():
    one, two = patch(2, 0), patch(2, 1)
    gone = Patch(two.down, torch.zeros_like(two.up), two.scale)
    squares = [p.delta.double().square().sum().item() for p in (one, two)]
    error = relative_error({"a": one, "b": two}, {"a": one, "b": gone})
    assert error == pytest.approx((squares[1] / sum(squares)) ** 0.5)
    assert relative_error({"a": gone}, {"a": gone}) == 0


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=4))
def test_uniform_patches_have_one_rank_and_scale_and_the_same_deltas_to_the_bit(shapes):
    patches = {str(i): patch(rank, i, scale) for i, (rank, scale) in enumerate(shapes)}
    made, scale = uniform(patches, 8)
    shared = {s for _, s in shapes}
    assert scale == (shared.pop() if len(shared) == 1 else 1.0)
    for name, before in patches.items():
        assert made[name].scale == scale
        assert made[name].down.shape == (8, 5)
        exact = before.scale * (before.up.double() @ before.down.double())
        assert torch.equal(made[name].scale * (made[name].up.double() @ made[name].down.double()), exact)
