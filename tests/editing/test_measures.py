"""What verification and tracing say about many facts together."""

import numpy as np
import pytest

from perdure.editing.measures import Answer, Verdict, summary
from perdure.editing.traces import ROLES, Trace, average

YES, NO, UNSAID = Answer(0.1, 2.0, True), Answer(3.0, 0.5, False), Answer(0.6, 2.0, False)


def test_efficacy_needs_both_to_be_likelier_and_to_be_said():
    assert [Verdict(a).efficacy for a in (YES, NO, UNSAID)] == [True, False, False]
    assert UNSAID.preferred
    assert Answer(0.5, None, True).preferred
    assert not Answer(0.5, None, False).preferred


def test_a_neighbour_stays_where_its_own_answer_is_likelier_than_the_target():
    verdict = Verdict(YES, (YES, NO), (Answer(4.0, 1.0, True), Answer(1.0, 4.0, False), Answer(4.0, 1.0, False)))
    assert verdict.paraphrase == 0.5
    assert verdict.neighbourhood == pytest.approx(2 / 3)
    assert Verdict(YES).paraphrase is Verdict(YES).neighbourhood is None
    assert verdict.efficacy is True


def test_the_summary_leaves_out_what_no_fact_has_and_gives_intervals():
    told = summary([Verdict(YES, (YES,), generation=True), Verdict(UNSAID), Verdict(NO)])
    assert told["preferred"][0] == pytest.approx(2 / 3)
    assert told["efficacy"][0] == pytest.approx(1 / 3)
    assert told["paraphrase"][0] == told["generation"][0] == 1.0
    assert not {"chat", "neighbourhood"} & told.keys()
    value, low, high = told["efficacy"]
    assert low < value < high


def traced(subject, restored):
    restored = np.array(restored, dtype=float)
    return Trace("mlp", tuple("abcdefgh"[: len(restored)]), subject, "x", 0.9, 0.1, restored, 1)


def test_tokens_are_averaged_by_role():
    long = traced((1, 4), [[0.1], [0.2], [0.3], [0.8], [0.4], [0.5], [0.7], [0.6]])
    assert dict(zip(ROLES, long.by_role()[:, 0].round(6), strict=True)) == {
        "first subject": 0.1,
        "middle subject": 0.2,
        "last subject": 0.7,
        "first after": 0.3,
        "further": 0.5,
        "last": 0.5,
    }
    short = traced((0, 1), [[0.3], [0.5]])
    assert np.isnan(short.by_role()[[1, 3, 4]]).all()
    found = average([long, short])
    assert found.mean[2, 0] == pytest.approx((0.7 + 0.2) / 2)
    assert (found.high - found.low)[2, 0] == pytest.approx(
        2 * 12.706 * 0.25, rel=1e-3
    )  # Student's t, one degree of freedom
    assert found.mean[1, 0] == pytest.approx(0.2)
    assert np.isnan(found.low[1, 0])
    assert found.n[:, 0].tolist() == [2, 1, 2, 1, 1, 2]
    assert long.total_effect == pytest.approx(0.8)
