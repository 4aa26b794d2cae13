"""Families of tests, looks at growing data, and means of intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.maths.families import holm, look_confidence, mean_of_intervals, simultaneous_confidence
from perdure.maths.statistics import paired_difference

p_values = st.lists(st.floats(0, 1), max_size=12)


def test_holm_of_the_papers_kind_of_example():
    # 0.01, 0.02, 0.03, 0.04 of four tests: 4 x .01, 3 x .02, then 2 x .03 and 1 x .04 are lifted to the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx((0.06, 0.04, 0.06, 0.06))
    assert holm([]) == ()
    assert holm([0.2]) == (0.2,)


@given(p_values, st.floats(0.001, 0.5))
def test_holm_rejects_exactly_what_its_steps_reject(values, level):
    order, rejected = sorted(range(len(values)), key=lambda k: values[k]), set()
    for rank, index in enumerate(order):  # the procedure as the paper describes it: step down until one is not rejected
        if min((len(values) - rank) * values[index], 1.0) >= level:
            break
        rejected.add(index)
    assert {k for k, p in enumerate(holm(values)) if p < level} == rejected


@given(p_values)
def test_holm_lies_between_the_plain_values_and_those_of_bonferroni_and_keeps_their_order(values):
    adjusted = holm(values)
    assert all(p <= a <= min(len(values) * p, 1.0) + 1e-12 for p, a in zip(values, adjusted, strict=True))
    assert [adjusted[k] for k in np.argsort(values, kind="stable")] == sorted(adjusted)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(value):
    with pytest.raises(ValueError, match="must lie in"):
        holm([0.5, value])


def test_bounds_that_hold_together_share_the_error():
    assert simultaneous_confidence(0.95, 1) == 0.95
    assert 1 - simultaneous_confidence(0.9, 4) == pytest.approx(0.025)
    with pytest.raises(ValueError, match="1 or more"):
        simultaneous_confidence(0.95, 0)


def test_three_looks_spend_the_error_of_one():
    assert sum(1 - look_confidence(look, 0.9) for look in (1, 2, 3)) == pytest.approx(0.1)
    assert look_confidence(1) > look_confidence(2) > look_confidence(3) > 0.95
    for look in (0, 4):
        with pytest.raises(ValueError, match="1 to 3"):
            look_confidence(look)


def test_the_mean_of_normal_intervals_is_that_of_their_mean():
    # Of symmetric intervals z s_k the mean's is z sqrt(sum s_k²) / m.
    spreads = [0.1, 0.2, 0.4]
    value, low, high = mean_of_intervals([(0.0, -s, s) for s in spreads])
    assert value == 0
    assert high == -low == pytest.approx(math.sqrt(sum(s * s for s in spreads)) / 3)
    with pytest.raises(ValueError, match="no interval"):
        mean_of_intervals([])


def test_the_bound_of_a_mean_drop_errs_about_as_often_as_it_says():
    generator, level, wrong, draws = np.random.default_rng(7), 0.03, 0, 1000
    for counts in generator.multinomial(
        200, [0.09, 0.06, 0.85], size=(draws, 4)
    ):  # four guards that drop 3 points each
        intervals = []
        for wins, losses, same in counts:
            a = np.repeat([1.0, 0.0, 1.0], [wins, losses, same])
            b = np.repeat([0.0, 1.0, 1.0], [wins, losses, same])
            intervals.append(paired_difference(a, b, one_sided=True))
        wrong += mean_of_intervals(intervals)[2] < level
    assert 0.02 < wrong / draws < 0.075
