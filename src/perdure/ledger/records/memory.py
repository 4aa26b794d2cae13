"""A row that memory holds."""

from dataclasses import dataclass

from perdure.core.records import Record, omitted


@dataclass(frozen=True)
class MemoryItem(Record):
    """A remembered row, as a manifest names it.

    Args:
        row: Key of the row, see `row_key`.
        pool: Name of the pool that draws it.
        task: Name of its task.
        label: Its class, where the task has classes.
        stage: Number of the learn that admitted it; None of a row that no task brought.
        score: What the admitting method ranked it by; likewise.
    """

    row: str
    pool: str
    task: str
    label: str | None
    stage: int | None = omitted(None)
    score: float | None = omitted(None)
