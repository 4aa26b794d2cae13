"""How well requests find their task, counted."""

import pytest

from perdure.evaluate.routing import SentRows, routing_accuracy
from perdure.maths.statistics import mean_interval

SENT = {"mail": ["mail", "mail", "bills", None], "bills": ["bills", "bills", "bills", "mail"]}


def test_rows_sent_home_are_counted_with_their_interval_and_a_line_a_task():
    found = routing_accuracy(SENT)
    assert (found.accuracy, found.n, found.unknown) == (5 / 8, 8, 1 / 8)
    assert (found.low, found.high) == pytest.approx(mean_interval([1.0] * 5 + [0.0] * 3)[1:])
    assert found.confusion == (
        SentRows("mail", {"bills": 1, "mail": 2}, 1),
        SentRows("bills", {"bills": 3, "mail": 1}, 0),
    )
    assert "62.5%" in found.line
    assert "12.5% were near no task" in found.line


def test_renamed_tasks_are_shown_by_their_alias_on_both_sides():
    found = routing_accuracy(SENT).renamed({"mail": "letters"})
    assert found.confusion[0] == SentRows("letters", {"bills": 1, "letters": 2}, 1)
    assert found.confusion[1].sent == {"bills": 3, "letters": 1}


def test_without_rows_there_is_no_accuracy():
    assert routing_accuracy({}) is None
    assert routing_accuracy({"mail": []}) is None
