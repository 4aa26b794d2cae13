"""The note of a revert of a task."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import Record
from perdure.ledger.records.score import ScoreSummary


@dataclass(frozen=True)
class TaskRevertNote(Record):
    """What a revert of a task notes of itself.

    Args:
        task: Name of the task.
        rows: Number of its rows that left memory.
        before: Score of each other task before the revert.
        scores: Score of each other task after it.
        warnings: What the user should know.
    """

    task: str
    rows: int
    before: Mapping[str, ScoreSummary]
    scores: Mapping[str, ScoreSummary]
    warnings: tuple[str, ...]
