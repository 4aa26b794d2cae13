"""Averages of causal traces: what counts for which role, and how wide the interval is."""

import numpy as np
import pytest
from scipy import stats

from perdure.editing.traces import ROLES, Trace, average, mean_over, student


def a_trace(tokens: int, subject: tuple[int, int], restored: np.ndarray) -> Trace:
    return Trace("block", tuple("abcdefgh"[:tokens]), subject, "x", 0.9, 0.1, restored, 1)


def test_students_quantile_is_that_of_scipy():
    freedom = np.arange(1, 200)
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    assert np.isnan(student(np.array([-1, 0]))).all()


def test_mean_and_interval_are_those_of_scipy_and_what_is_missing_does_not_count():
    values = np.random.default_rng(0).normal(size=(7, 3))
    values[:5, 1] = np.nan
    values[1:, 2] = np.nan
    found = mean_over(values)
    assert found.n.tolist() == [7, 2, 1]
    for column, n in enumerate((7, 2)):
        known = values[:, column][~np.isnan(values[:, column])]
        ends = stats.t.interval(0.95, n - 1, known.mean(), stats.sem(known))
        assert (found.low[column], found.high[column]) == pytest.approx(ends, rel=1e-9)
    assert found.mean[2] == values[0, 2]
    assert np.isnan(found.low[2])


def test_roles_are_averaged_over_the_prompts_that_have_them():
    short = a_trace(3, (0, 1), np.full((3, 2), 0.3))  # no token in the middle of the subject
    long = a_trace(6, (1, 4), np.arange(12).reshape(6, 2) / 10)
    found = average([short, long])
    assert found.mean.shape == (len(ROLES), 2)
    assert found.n[:, 0].tolist() == [2, 1, 2, 2, 0, 2]
    assert np.isnan(found.mean[4]).all()
    rows = dict(zip(ROLES, found.mean, strict=True))
    assert rows["middle subject"] == pytest.approx(np.array([0.4, 0.5]) - 0.1)  # token 2 of the long prompt alone
    assert rows["last"] == pytest.approx((np.array([0.3, 0.3]) + np.array([1.0, 1.1])) / 2 - 0.1)
