"""What a gate decided, and why."""

from dataclasses import dataclass
from typing import Literal

from perdure.core.records import Record

Word = Literal["pass", "inconclusive", "fail"]


@dataclass(frozen=True)
class TaskVerdict(Record):
    """What a gate decided about one guarded task.

    Args:
        task: Its name.
        verdict: The decision.
        reference: Its score when it was learned, over the test rows of both scores.
        now: Its score now, over the same rows.
        drop: `reference - now`.
        low: Lower one-sided bound of the drop.
        high: Upper one-sided bound.
        n: Number of test rows.
        tolerance: Largest drop that is accepted.
        more_items: Test rows that would decide if the drop stays as it is; None where it is decided, or where none would.
        reason: All that in a sentence.
    """

    task: str
    verdict: Word
    reference: float
    now: float
    drop: float
    low: float
    high: float
    n: int
    tolerance: float
    more_items: int | None
    reason: str


@dataclass(frozen=True)
class FloorVerdict(Record):
    """What a gate decided about the least score of the new task.

    Args:
        task: The new task.
        verdict: The decision.
        now: Its score.
        n: Number of test rows.
        floor: The least score.
        reason: All that in a sentence.
    """

    task: str
    verdict: Word
    now: float
    n: int
    floor: float
    reason: str


@dataclass(frozen=True)
class FactsVerdict(Record):
    """What a gate decided about the edited facts that the model said before.

    Args:
        verdict: The decision.
        n: Number of facts said before.
        lost: Ids of those that are not said any more.
        allowed: Largest share that may be lost.
        reason: All that in a sentence.
    """

    verdict: Word
    n: int
    lost: tuple[str, ...]
    allowed: float
    reason: str


@dataclass(frozen=True)
class Verdict(Record):
    """What a gate decided.

    Args:
        verdict: The decision.
        tolerance: Largest drop that is accepted, where a task has no tolerance of its own.
        confidence: One-sided, of each bound.
        strict: Whether an inconclusive gate counts as failed.
        reason: The decision in a sentence.
        tasks: About each guarded task, the worst first.
        floor: About the new task; None where no least score was set.
        facts: About the edited facts; None where the model said none before.
    """

    verdict: Word
    tolerance: float
    confidence: float
    strict: bool
    reason: str
    tasks: tuple[TaskVerdict, ...]
    floor: FloorVerdict | None
    facts: FactsVerdict | None = None


@dataclass(frozen=True)
class GateOff(Record):
    """Stands for the verdict where the gate was switched off."""

    verdict: Literal["off"] = "off"
    reason: str = "the gate was switched off"
    tasks: tuple[TaskVerdict, ...] = ()
