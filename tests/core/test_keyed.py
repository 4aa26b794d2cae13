"""Randomness by key: equal keys agree, other keys have nothing to do with them, the global stream is left alone."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.keyed import keyed, seed_of

keys = st.lists(st.one_of(st.integers(), st.text()), max_size=4).map(tuple)


@given(keys, keys)
def test_keys_agree_exactly_when_they_are_equal(one, other):
    assert (seed_of(*one) == seed_of(*other)) == (one == other)
    assert 0 <= seed_of(*one) < 2**63


def test_parts_do_not_run_together():
    assert (
        len({seed_of("a", "bc"), seed_of("ab", "c"), seed_of("abc"), seed_of(1, 2), seed_of(12), seed_of("1", 2)}) == 6
    )


def test_another_draw_in_between_changes_nothing_and_the_global_stream_is_not_read():
    first = keyed(0, "task", "replay", 3).random(4)
    np.random.seed(1)
    keyed(0, "task", "other", 3).random(100)
    assert np.array_equal(keyed(0, "task", "replay", 3).random(4), first)
    before = np.random.get_state()[1].copy()
    keyed(5).permutation(10)
    assert np.array_equal(np.random.get_state()[1], before)


def test_neighbouring_keys_are_uncorrelated():
    draws = np.array([keyed(0, "task", update).random(200) for update in range(40)])
    correlations = np.corrcoef(draws)[np.triu_indices(40, 1)]
    assert abs(correlations.mean()) < 0.02
    assert np.abs(correlations).max() < 0.4  # 780 pairs of 200 draws: 5.6 standard errors


def test_another_process_draws_the_same():
    code = "from perdure.core.keyed import seed_of; print(seed_of(7, 'task', 'replay', 3))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(told) == seed_of(7, "task", "replay", 3)
