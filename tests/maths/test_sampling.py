"""Draws by given uniform numbers: the inverse of the cumulated distribution."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.maths.sampling import drawn_at, raced


def test_a_grid_of_uniform_numbers_gives_each_class_its_probability():
    logits = torch.tensor([0.5, -1.0, 2.0, -30.0])
    n = 10000
    drawn = drawn_at(logits.repeat(n, 1), (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    counts = torch.bincount(drawn, minlength=4) / n
    torch.testing.assert_close(counts, logits.softmax(-1), rtol=0, atol=2 / n)


@given(st.integers(0, 10**6))
def test_a_class_without_probability_is_never_drawn_at_the_ends(seed):
    torch.manual_seed(seed)
    logits = torch.randn(2, 5)
    logits[:, [0, 4]] = -torch.inf
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert set(drawn_at(logits, ends).tolist()) <= {1, 2, 3}


def test_a_race_is_won_as_often_as_each_class_is_likely():
    logits = torch.tensor([0.5, -1.0, 2.0, -30.0]).repeat(20_000, 1)
    clocks = torch.from_numpy(np.random.default_rng(0).standard_exponential(logits.shape))
    shares = torch.bincount(raced(logits, clocks), minlength=4) / len(logits)
    torch.testing.assert_close(shares, logits[0].softmax(-1), rtol=0, atol=0.015)  # four standard errors


def test_where_logits_are_rounded_few_draws_change():
    torch.manual_seed(0)
    logits = torch.randn(2000, 500) * 2
    clocks = torch.from_numpy(np.random.default_rng(1).standard_exponential(logits.shape))
    moved = logits + 0.01 * torch.randn_like(logits)  # as bfloat16 in other company does
    assert (raced(logits, clocks) != raced(moved, clocks)).float().mean() < 0.03
