"""The Jensen-Shannon divergence: bounded, symmetric, 0 to the bit for equal distributions, smaller over merged events."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.maths.divergence import events_of, jensen_shannon, known_kl, top_k

VOCAB = 8
seeds = st.integers(0, 10**6)


def logits(seed, scale=3.0):
    torch.manual_seed(seed)
    return scale * torch.randn(4, VOCAB, dtype=torch.float64)


def by_definition(p, q):
    m = (p + q) / 2
    return ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2


@given(seeds, st.floats(0.1, 10))
def test_it_is_the_mean_kl_to_the_middle_and_symmetric_and_at_most_ln_2(seed, scale):
    first, second = logits(seed, scale).log_softmax(-1), logits(seed + 1, scale).log_softmax(-1)
    found = jensen_shannon(first, second)
    torch.testing.assert_close(found, by_definition(first.exp(), second.exp()))
    torch.testing.assert_close(found, jensen_shannon(second, first))
    assert (found >= 0).all()
    assert (found <= math.log(2)).all()


@given(seeds)
def test_equal_distributions_have_neither_divergence_to_the_bit(seed):
    one = logits(seed).float().log_softmax(-1)
    assert jensen_shannon(one, one.clone()).tolist() == [0.0] * 4
    assert known_kl(one, one.clone()).tolist() == [0.0] * 4


def test_distributions_with_nothing_in_common_have_ln_2_and_an_infinite_kl():
    sure, other = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    assert jensen_shannon(sure, other).item() == pytest.approx(math.log(2))
    assert known_kl(sure, other).item() == math.inf
    assert jensen_shannon(sure, sure).item() == known_kl(sure, sure).item() == 0


def test_a_gap_beyond_the_range_of_exp_is_no_overflow():
    far = torch.tensor([[0.0, -500.0]]), torch.tensor([[-500.0, 0.0]])
    assert jensen_shannon(*far).item() == pytest.approx(math.log(2))
    assert known_kl(*far).item() == pytest.approx(500)


@given(seeds, st.integers(1, VOCAB - 1))
def test_over_the_top_k_and_the_rest_both_are_at_most_the_whole(seed, k):
    teacher, student = logits(seed), logits(seed + 1)
    index, logprob, tail, _ = top_k(teacher, k)
    mine = torch.cat([logprob, tail[:, None]], -1)
    selected, rest = events_of(student, index)
    theirs = torch.cat([selected, rest[:, None]], -1)
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    assert (jensen_shannon(mine, theirs) <= jensen_shannon(p, q) + 1e-9).all()
    assert (known_kl(mine, theirs) <= known_kl(p, q) + 1e-9).all()
