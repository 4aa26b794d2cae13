"""Samples of test rows: the same for the same rows, by label, and part of every larger sample."""

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from perdure.core.rows import Row
from perdure.data.sample import sample_of

LABELS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60)


def sample_rows(rows, most, seed=0):
    return [rows[i] for i in sample_of(rows, most, seed)]


def rows_of(labels):
    return [Row(prompt=f"{i}?", completion="x", label=label) for i, label in enumerate(labels)]


@given(labels=LABELS, smaller=st.integers(1, 60), larger=st.integers(1, 60), seed=st.integers(0, 3))
def test_a_smaller_sample_is_part_of_a_larger_one_whatever_the_order(labels, smaller, larger, seed):
    rows = rows_of(labels)
    few, many = sorted((smaller, larger))
    sample = sample_rows(rows, few, seed)
    assert len(sample) == min(few, len(rows))
    assert set(sample) <= set(sample_rows(rows, many, seed))
    assert set(sample_rows(rows[::-1], few, seed)) == set(sample)
    assert [rows.index(row) for row in sample] == sorted(rows.index(row) for row in sample)  # in their order


@given(labels=LABELS, most=st.integers(1, 60))
def test_each_label_has_its_share_to_one_row(labels, most):
    rows = rows_of(labels)
    sizes, found = Counter(labels), Counter(row.label for row in sample_rows(rows, most))
    for label, size in sizes.items():
        assert abs(found[label] - size * min(most, len(rows)) / len(rows)) < len(sizes)


def test_the_seed_chooses():
    rows = rows_of([None] * 40)
    assert sample_rows(rows, 10, 0) != sample_rows(rows, 10, 1)
