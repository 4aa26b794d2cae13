"""Examples of the records that stand beside entries, for tests that need one of a shape, not measured."""

from collections.abc import Sequence

from perdure.core.rows import Row
from perdure.ledger import row_key
from perdure.ledger.records import MemoryItem, Score


def score(
    items: Sequence[float], rows: Sequence[str] | None = None, *, scorer: str = "exact", seconds: float = 1.2
) -> Score:
    """Return the score of a task with these items; its interval is the whole range."""
    names = [f"row {k}" for k in range(len(items))] if rows is None else rows
    mean = sum(items) / len(items)
    said = ("",) * len(items)
    return Score(scorer, mean, 0.0, 1.0, len(items), tuple(items), said, tuple(names), seconds)


def remembered(row: Row) -> MemoryItem:
    """Return the item that names a row in a manifest."""
    return MemoryItem(row_key(row), "replay", row.task, row.label)
