"""Batches: every row once, the shortest first, no batch above its limits."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from perdure.core.batches import of_like_length


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
