"""Which rows run in one batch: every row once, no batch above its limits; an epoch is a permutation."""

import itertools
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.grouping import of_like_length, plan_epoch


@given(st.lists(st.integers(1, 40)), st.integers(1, 6), st.integers(1, 90))
def test_every_row_stands_in_one_batch_within_the_limits(lengths, rows, tokens):
    batches = of_like_length(lengths, rows, tokens)
    order = [i for batch in batches for i in batch]
    assert order == sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for batch in batches:
        assert 1 <= len(batch) <= rows
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens
    for batch, after in pairwise(batches):  # none is cut before it is full
        assert len(batch) == rows or (len(batch) + 1) * lengths[after[0]] > tokens


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@given(lengths, st.integers(1, 9), st.integers(1, 4), st.integers(0, 9))
def test_an_epoch_holds_every_row_once_in_full_batches(lengths, size, window, seed):
    batches = plan_epoch(lengths, size, seed, window=window)
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    assert sorted(map(len, batches), reverse=True)[: len(lengths) // size] == [size] * (len(lengths) // size)
    assert len(batches) == -(-len(lengths) // size)
    assert batches == plan_epoch(lengths, size, seed, window=window)


def padded(lengths, batches):
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


def test_grouping_saves_a_fifth_of_the_tokens_and_keeps_the_order_random():
    torch.manual_seed(0)
    lengths = (20 + 20 * torch.rand(400)).int().tolist()
    grouped, plain = plan_epoch(lengths, 16, 0), plan_epoch(lengths, 16, 0, window=1)
    assert padded(lengths, grouped) < 0.85 * padded(lengths, plain)
    firsts = [lengths[batch[0]] for batch in grouped]
    assert firsts not in (sorted(firsts), sorted(firsts, reverse=True))


def test_another_epoch_has_other_batches():
    lengths = [5 + i % 7 for i in range(64)]
    assert len({tuple(map(tuple, plan_epoch(lengths, 8, 0, "task", epoch))) for epoch in range(5)}) == 5
