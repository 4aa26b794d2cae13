"""Admission: which rows are kept, and which give way when memory is full."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from perdure.core.errors import BadSpec
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext
from perdure.memory.admission import admission_scores, keep_best, shrink

ROWS = [Row("question", str(i), task="cards") for i in range(20)]
items = st.lists(st.tuples(st.sampled_from("abcde"), st.integers()), max_size=40)


def group(item):
    return item[0]


def admitted(seed, rows=ROWS, size=5):
    scores = admission_scores("reservoir", rows, AdmitContext(seed, "cards"))
    return keep_best(rows, scores, lambda row: None, size)


def test_every_row_has_the_same_chance_to_enter_the_reservoir():
    seen = Counter(row.completion for seed in range(1200) for row in admitted(seed))
    assert sum(seen.values()) == 1200 * 5
    # the rows of one draw exclude each other, so the counts vary less than a multinomial's: by (20 - 5) / (20 - 1)
    scaled = chisquare([seen[row.completion] for row in ROWS]).statistic * 19 / 15
    assert scaled < 43.8  # the 99.9% point of chi-square with 19 degrees of freedom


@given(st.permutations(ROWS), st.integers(0, 99))
def test_the_order_of_a_file_does_not_matter_to_the_reservoir(rows, seed):
    assert {row.hash for row in admitted(seed, rows)} == {row.hash for row in admitted(seed)}


def test_hard_rows_are_those_the_settled_model_finds_least_likely_and_surprising_ones_the_model_before():
    told = AdmitContext(0, "cards", nll_before=list(range(20)), nll_after=list(range(20, 0, -1)))
    for policy, best in (("hard", ["0", "1", "2"]), ("surprise", ["17", "18", "19"])):
        scores = admission_scores(policy, ROWS, told)
        assert [row.completion for row in keep_best(ROWS, scores, lambda row: None, 3)] == best
        with pytest.raises(BadSpec, match=f"admission '{policy}' needs losses"):
            admission_scores(policy, ROWS, AdmitContext(0, "cards"))


@given(items, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_best_of_each_group_are_kept_in_their_order(given_items, size, random):
    scores = [random.random() for _ in given_items]
    kept = keep_best(list(enumerate(given_items)), scores, lambda pair: group(pair[1]), size)
    assert kept == sorted(kept, key=lambda pair: pair[0])
    for name, count in Counter(map(group, given_items)).items():
        mine = sorted((i for i, item in enumerate(given_items) if group(item) == name), key=lambda i: -scores[i])
        assert {i for i, item in kept if group(item) == name} == set(mine[: min(size, count)])


@given(items, st.integers(0, 45), st.integers(0, 9))
def test_shrinking_keeps_the_size_the_order_and_takes_from_the_largest_groups(given_items, size, seed):
    numbered = list(enumerate(given_items))
    kept = shrink(numbered, lambda pair: group(pair[1]), size, seed)
    assert len(kept) == min(size, len(numbered))
    assert kept == [pair for pair in numbered if pair in kept]
    before, after = (Counter(group(item) for _, item in pairs) for pairs in (numbered, kept))
    touched = [after[name] for name in before if after[name] < before[name]]
    if touched:  # a group that lost a row is not smaller, by more than one, than any other that is left
        assert max(after.values(), default=0) - min(touched) <= 1
    assert kept == shrink(numbered, lambda pair: group(pair[1]), size, seed)


@given(items, st.integers(0, 20))
def test_shrinking_twice_is_shrinking_once(given_items, size):
    once = shrink(given_items, group, size, "key")
    assert shrink(once, group, size, "another key") == once


def test_another_key_drops_other_rows():
    pairs = [("a", i) for i in range(30)]
    assert shrink(pairs, group, 10, 0) != shrink(pairs, group, 10, 1)
