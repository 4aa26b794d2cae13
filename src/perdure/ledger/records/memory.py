"""A row in memory."""

from dataclasses import dataclass

from perdure.core.records import Record, omitted


@dataclass(frozen=True)
class MemoryItem(Record):
    """A remembered row, as a manifest names it.

    Args:
        row: Key of the row, see `row_key`.
        pool: Name of the memory pool that it belongs to.
        task: Name of its task.
        label: Its class, where the task has classes.
        stage: Number of the learn that admitted it; None for a row of no task.
        score: The rank that the admitting method gave it; None for a row of no task.
    """

    row: str
    pool: str
    task: str
    label: str | None
    stage: int | None = omitted(None)
    score: float | None = omitted(None)
