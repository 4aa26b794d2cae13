"""Perturbations: of the wished length, up the gradient, and a row's own whatever stands beside it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.maths.perturbation import climb, mean_lengths, row_directions


def made(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([1e-30, 1e-3, 1.0, 1e20]))
def test_directions_have_length_one_whatever_the_scale_and_zeros_stay(seed, scale):
    up = made(seed, 3, 4, 5)
    up[1] = 0
    found = row_directions(scale * up)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.tensor([1.0, 0.0, 1.0]).double(), rtol=1e-5, atol=0)
    expected = up[0] / up[0].norm()
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-6)


def test_the_mean_length_counts_only_what_the_loss_depends_on():
    tokens, up = made(0, 2, 4, 3), made(1, 2, 4, 3)
    up[0, 2:] = 0  # padding
    found = mean_lengths(tokens, up)
    assert found.shape == (2, 1, 1)
    assert found[0].item() == pytest.approx(tokens[0, :2].norm(dim=-1).mean().item(), rel=1e-6)
    assert found[1].item() == pytest.approx(tokens[1].norm(dim=-1).mean().item(), rel=1e-6)
    assert mean_lengths(tokens, 0 * up).tolist() == [[[0.0]], [[0.0]]]
    assert mean_lengths(tokens[:, 0], up[:, 0]).shape == (2, 1)  # feature rows without positions


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_climbing_never_leaves_the_ball_and_straight_up_ends_on_its_border(seed, steps):
    up, radius = made(seed, 2, 3, 4), torch.tensor([[[0.5]], [[2.0]]], dtype=torch.float64)
    moved = torch.zeros_like(up)
    for i in range(steps):
        moved = climb(moved, made(seed + i, 2, 3, 4), radius, 2 / steps)
        assert (moved.flatten(1).norm(dim=1) <= radius.flatten() * (1 + 1e-6)).all()
    straight = torch.zeros_like(up)
    for _ in range(steps):
        straight = climb(straight, up, radius, 2 / steps)
    torch.testing.assert_close(straight, radius * row_directions(up), rtol=1e-5, atol=1e-7)
