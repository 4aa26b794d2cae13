"""Scores of tasks at an entry, before and after, and at two entries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.records import Record
from perdure.evaluate.subset import over_rows
from perdure.ledger.records import Score, ScoreSummary

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger


@dataclass(frozen=True)
class ScoreCells(Record):
    """The scores of a task at an entry and at its parent, over the same test rows; None where not measured.

    Args:
        before: At the parent.
        now: At the entry.
    """

    before: ScoreSummary | None
    now: ScoreSummary | None


@dataclass(frozen=True)
class Change(Record):
    """A difference of two scores, over the test rows that both have.

    Args:
        value: The second less the first.
        low: Lower end of its 95% interval.
        high: Upper end.
        n: Number of test rows.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Pair(Record):
    """The scores of a task at two entries; None where not measured.

    Args:
        a: At the first.
        b: At the second.
        change: `b - a`; None where no test row has both scores.
    """

    a: ScoreSummary | None
    b: ScoreSummary | None
    change: Change | None


def task_order(ledger: "Ledger", entry: "Entry") -> list[str]:
    """Return the tasks of an entry in the order of learning. The ledger stores them sorted by name."""
    seen: dict[str, None] = {}
    for ancestor in reversed(ledger.ancestors(entry)):
        seen.update(dict.fromkeys(ancestor.tasks))
    return [task for task in seen if task in entry.tasks]


def taken_out(ledger: "Ledger", entry: "Entry", task: str) -> "Entry | None":
    """Return the entry, at or before `entry`, that took a task out; None if there is none, or if `entry` knows the task."""
    if task in entry.tasks:
        return None
    return next((e for e in ledger.ancestors(entry) if e.kind == "revert" and e.data.get("task") == task), None)


def score_table(ledger: "Ledger", entry: "Entry") -> dict[str, ScoreCells]:
    """Return the scores of each task of an entry there and at the parent.

    Where the parent was scored on other test rows too, as before an update or a deletion, those are left out of "before".
    """
    parent = ledger.entry(entry.parent) if entry.parent else None
    table: dict[str, ScoreCells] = {}
    for task in task_order(ledger, entry):
        version = entry.tasks[task]
        now = _score(ledger, entry, task, version)
        before = _score(ledger, parent, task, version) if parent else None
        if parent and before is None and task in parent.tasks:
            before = _score(ledger, parent, task, parent.tasks[task])
        if before and now:
            before = over_rows(before, now.rows)
        table[task] = ScoreCells(_summary(before), _summary(now))
    return table


def paired(ledger: "Ledger", a: "Entry", b: "Entry", task: str) -> Pair:
    """Return a task's scores at two entries, and b - a with its interval over the test rows that both scored."""
    versions = [a.tasks.get(task) or b.tasks[task], b.tasks.get(task) or a.tasks[task]]
    old, new = (_score(ledger, entry, task, version) for entry, version in zip((a, b), versions, strict=True))
    return Pair(_summary(old), _summary(new), _change(old, new) if old and new else None)


def paired_tasks(ledger: "Ledger", a: "Entry", b: "Entry") -> Mapping[str, Pair]:
    """Return `paired` of each task that one of two entries knows."""
    return {
        task: paired(ledger, a, b, task) for task in dict.fromkeys([*task_order(ledger, a), *task_order(ledger, b)])
    }


def _change(old: Score, new: Score) -> Change | None:
    from perdure.maths.statistics import paired_difference

    earlier = dict(zip(old.rows, old.items, strict=True))
    items = [(now, earlier[row]) for row, now in zip(new.rows, new.items, strict=True) if row in earlier]
    if not items:
        return None
    return Change(*paired_difference([now for now, _ in items], [then for _, then in items]), len(items))


def _summary(score: Score | None) -> ScoreSummary | None:
    return score.summary if score else None


def _score(ledger: "Ledger", entry: "Entry", task: str, version: str) -> Score | None:
    return ledger.score(ledger.seen(entry, task), version)
