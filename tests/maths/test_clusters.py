"""Spherical k-means: unit centres, exact where the groups are plain, and a result that depends on the points alone."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from perdure.maths.clusters import spherical_means


def points(seed, n=20, dims=4):
    return normalize(torch.randn(n, dims, generator=torch.Generator().manual_seed(seed)), dim=-1)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_centres_have_length_one_and_are_no_more_than_points(seed, size):
    centres = spherical_means(points(seed), size)
    assert centres.shape == (min(size, 20), 4)
    torch.testing.assert_close(centres.norm(dim=-1), torch.ones(len(centres)), rtol=1e-5, atol=1e-6)


def test_one_centre_is_the_mean_direction():
    given = points(1)
    torch.testing.assert_close(spherical_means(given, 1)[0], normalize(given.sum(0), dim=0))


def test_it_finds_groups_that_stand_apart():
    axes = torch.eye(3)
    noisy = normalize(
        axes.repeat(10, 1) + 0.05 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    found = spherical_means(noisy, 3)
    assert (found @ axes.T).max(0).values.min() > 0.99


def test_every_round_brings_points_no_further_from_their_centres():
    given = points(2, n=60)
    fits = [(given @ spherical_means(given, 5, rounds).T).max(-1).values.sum().item() for rounds in range(1, 8)]
    assert all(later >= earlier - 1e-5 for earlier, later in itertools.pairwise(fits))


def test_points_that_are_all_the_same_give_themselves():
    torch.testing.assert_close(spherical_means(torch.tensor([[0.6, 0.8]]).repeat(5, 1), 3)[0], torch.tensor([0.6, 0.8]))
