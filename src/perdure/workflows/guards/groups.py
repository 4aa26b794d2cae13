"""Groups of a guard's rows: those of one template, passage or subject change together, and are resampled together."""

from collections.abc import Sequence

from perdure.core.rows import Row
from perdure.ledger import Ledger
from perdure.ledger.records import Guard, Score
from perdure.maths.statistics import Interval, mean_interval


def groups_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the group of each row; nothing where a row has none, since rows are independent then."""
    return tuple(row.group for row in rows) if all(row.group for row in rows) else ()


def groups_of_score(ledger: Ledger, guard: Guard, score: Score) -> tuple[str, ...]:
    """Return the group of each row of a stored score, as `groups_of`; a row that was deleted since is a group of its own."""
    rows = ledger.task_rows(guard.version, "test")
    if not groups_of(rows):
        return ()
    known = {row.hash: row.group for row in rows}
    return tuple(known.get(name, name) for name in score.rows)


def grouped_interval(score: Score, groups: Sequence[str]) -> Interval:
    """Return a score with its 95% interval: the stored one, which is over rows, or that over groups where there are some."""
    if not groups:
        return score.score, score.low, score.high
    return mean_interval(score.items, groups=groups)
