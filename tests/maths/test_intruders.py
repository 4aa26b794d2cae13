"""Intruder directions: what a low-rank update puts among the leading singular vectors that was not there."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from perdure.maths.intruders import intruders

SIDES = [(4, 4), (5, 4), (4, 5)]


def diagonal(out, into, *values):
    weight = torch.zeros(out, into, dtype=torch.float64)
    weight[range(4), range(4)] = torch.tensor(values or (4.0, 3.0, 2.0, 1.0), dtype=torch.float64)
    return weight


def even(side):
    """A unit vector at the same angle to the first four axes: its cosine with each is a half."""
    return torch.cat([torch.full((4,), 0.5), torch.zeros(side - 4)]).double()


@pytest.mark.parametrize(("out", "into"), SIDES)
def test_an_update_along_a_known_direction_is_no_intruder(out, into):
    before = diagonal(out, into)
    assert len(intruders(before, before)) == 0
    assert len(intruders(before, diagonal(out, into, 40.0, 3.0, 2.0, 1.0))) == 0
    assert len(intruders(before, 7 * before)) == 0


@pytest.mark.parametrize(("out", "into"), SIDES)
def test_a_large_update_across_the_known_directions_is_one(out, into):
    before = diagonal(out, into)
    after = before + 1e4 * torch.outer(even(out), even(into))
    assert len(intruders(before, after, below=0.49)) == 0  # its cosine with each axis is a half
    found = intruders(before, after, top=1, below=0.51)
    assert len(found) == 1
    assert found.values.item() == pytest.approx(1e4, rel=1e-3)
    assert (found.left[:, 0] @ even(out)).abs() == pytest.approx(1, abs=1e-3)
    assert (found.right[:, 0] @ even(into)).abs() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("out", "into"), SIDES)
def test_the_correction_leaves_the_share_and_touches_no_other_direction(out, into):
    before = diagonal(out, into)
    after = before + 100 * torch.outer(even(out), even(into))
    found = intruders(before, after, top=1, below=0.6)
    values = torch.linalg.svdvals(after)
    for share in (1.0, 0.5, 0.0):
        now = after + found.correction(share).delta.double()
        expected = torch.cat([values[1:], share * values[:1]]).sort(descending=True).values
        assert_close(torch.linalg.svdvals(now), expected, atol=1e-4, rtol=1e-5)


@given(st.integers(0, 30), st.sampled_from(SIDES))
def test_intruders_are_singular_vectors_of_the_changed_weight(seed, sides):
    random = torch.Generator().manual_seed(seed)
    before, after = (torch.randn(*sides, generator=random, dtype=torch.float64) for _ in range(2))
    found = intruders(before, after, top=3, below=0.9)
    for value, left, right in zip(found.values, found.left.mT, found.right.mT, strict=True):
        assert_close(after @ right, value * left, atol=1e-7, rtol=1e-7)
        assert_close(left @ after, value * right, atol=1e-7, rtol=1e-7)
    u, _, _ = torch.linalg.svd(before, full_matrices=False)
    v, _, _ = torch.linalg.svd(after, full_matrices=False)
    assert len(found) == int(((u.mT @ v[:, :3]).abs().amax(0) < 0.9).sum())
