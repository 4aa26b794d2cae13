"""The verdict of a gate, with reasons."""

from dataclasses import dataclass
from typing import Literal

from perdure.core.records import Record, omitted
from perdure.core.tables import Grid, Tabular, cells_of
from perdure.ledger.records.guards_verdict import GuardsVerdict

COLUMNS = ("task", "verdict", "reference", "now", "drop", "low", "high", "n", "tolerance", "more_items")
GATE = "gate"  # the note of an edit or a revert that has the verdict on its tasks; a learn has it in its record
Word = Literal["pass", "inconclusive", "fail"]


@dataclass(frozen=True)
class TaskVerdict(Record):
    """The verdict of a gate on one guarded task.

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
        more_items: Number of further test rows that would decide if the drop stays as it is; None where it is decided, or where
            no number would decide.
        reason: The verdict in a sentence.
        p: P value of "it lost at most the tolerance", adjusted for the number of tasks judged together (Holm); None where "fail"
            is not corrected.
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
    p: float | None = omitted(None)


@dataclass(frozen=True)
class FloorVerdict(Record):
    """The verdict of a gate on the floor for the new task.

    Args:
        task: The new task.
        verdict: The decision.
        now: Its score.
        n: Number of test rows.
        floor: The lowest accepted score.
        reason: The verdict in a sentence.
    """

    task: str
    verdict: Word
    now: float
    n: int
    floor: float
    reason: str


@dataclass(frozen=True)
class FactsVerdict(Record):
    """The verdict of a gate on the edited facts that the model answered with before.

    Args:
        verdict: The decision.
        n: Number of these facts.
        lost: Ids of the facts that the model does not answer with any more.
        allowed: Largest share that may be lost.
        reason: The verdict in a sentence.
    """

    verdict: Word
    n: int
    lost: tuple[str, ...]
    allowed: float
    reason: str


@dataclass(frozen=True)
class Verdict(Record, Tabular):
    """The verdict of a gate.

    Args:
        verdict: The decision.
        tolerance: Largest drop that is accepted, where a task has no tolerance of its own.
        confidence: One-sided, of each bound.
        strict: Whether an inconclusive gate counts as failed.
        reason: The decision in a sentence.
        tasks: The verdict on each guarded task, the worst first.
        floor: The verdict on the floor; None where there is no floor.
        facts: The verdict on the edited facts; None where the model answered with none before.
        correct: "holm" where "fail" was corrected for the number of tasks.
        guards: The verdict on abilities and drift; None where the workspace has no guard.
    """

    verdict: Word
    tolerance: float
    confidence: float
    strict: bool
    reason: str
    tasks: tuple[TaskVerdict, ...]
    floor: FloorVerdict | None
    facts: FactsVerdict | None = None
    correct: Literal["none", "holm"] = omitted("none")
    guards: GuardsVerdict | None = omitted(None)

    @property
    def losses(self) -> tuple[TaskVerdict, ...]:
        """The tasks that lost more than the tolerance, or lost and the test rows do not decide how much."""
        return tuple(task for task in self.tasks if task.verdict != "pass" and task.drop > 0)

    def grid(self) -> Grid:
        """Return a row for each guarded task, the worst first."""
        return Grid(COLUMNS, tuple(cells_of(task, COLUMNS) for task in self.tasks), _title(self))


@dataclass(frozen=True)
class GateOff(Record, Tabular):
    """The verdict where the gate was switched off."""

    verdict: Literal["off"] = "off"
    reason: str = "the gate was switched off"
    tasks: tuple[TaskVerdict, ...] = ()

    def grid(self) -> Grid:
        """Return a table without rows."""
        return Grid(COLUMNS, (), _title(self))


def _title(verdict: Verdict | GateOff) -> str:
    return f"gate: {verdict.verdict}, {verdict.reason}"
