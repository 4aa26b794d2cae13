"""Numbers as they are read: percent, points, durations, times."""

import pytest

from perdure.evaluate.matrix import Stage
from perdure.report.words import clip, count, duration, number, percent, points, span, title_of, when


@pytest.mark.parametrize(("score", "text"), [(0.871, "87.1%"), (1.0, "100.0%"), (None, "\u2013")])
def test_scores_are_percent(score, text):
    assert percent(score) == text


@pytest.mark.parametrize(
    ("difference", "text"), [(-0.019, "\u22121.9"), (0.2, "+20.0"), (-0.0001, "0.0"), (0.0, "0.0"), (None, "\u2013")]
)
def test_differences_are_points_with_a_sign_unless_they_round_to_nothing(difference, text):
    assert points(difference) == text


def test_an_interval_that_was_not_computed_is_no_text():
    assert span(None, None) == ""
    assert span(0.846, 0.894) == "84.6 to 89.4"
    assert span(-0.02, 0.01, signed=True) == "\u22122.0 to +1.0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.24, "1.2 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (192, "3 min 12 s"), (7500, "2 h 5 min")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_times_are_written_in_utc_and_other_text_is_left_alone():
    assert when("2026-02-11T15:05:00+01:00") == "11 Feb 2026, 14:05"
    assert when("yesterday") == "yesterday"


def test_counts_take_their_word_along():
    assert (count(1, "task"), count(12288, "token"), count(0, "row")) == ("1 task", "12,288 tokens", "0 rows")


def test_quantities_have_three_digits():
    assert (number(0.062713), number(12345.6), number(-2)) == ("0.0627", "12,346", "\u22122")


def test_long_names_are_cut_in_the_middle():
    assert clip("returns for business customers", 15) == "returns\u2026stomers"
    assert len(clip("x" * 100, 44)) == 44
    assert clip("short", 15) == "short"


def test_a_learn_is_called_by_its_task_and_other_entries_by_their_kind():
    assert title_of(Stage(None, "learn", "mobile")) == "mobile"
    assert title_of(Stage(None, "revert", "mobile")) == "revert mobile"
    assert title_of(Stage(None, "base", None)) == "base"
