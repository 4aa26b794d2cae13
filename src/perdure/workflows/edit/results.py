"""What the verbs of edits return."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from perdure.core.records import Record
from perdure.ledger.records import (
    Drift,
    EditNote,
    FactLine,
    RefusedFact,
    RevertedFact,
    ScoreSummary,
    SupersededFact,
    Verdict,
)


@dataclass(frozen=True)
class EditSummary(Record):
    """An edit as `perdure edit --json` prints it; for the fields see `EditResult`."""

    entry: str | None
    applied: tuple[str, ...]
    refused: tuple[RefusedFact, ...]
    already: tuple[str, ...]
    seconds: float
    before: Mapping[str, ScoreSummary]
    scores: Mapping[str, ScoreSummary]
    gate: Verdict | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class EditResult(Record):
    """What an edit did.

    Args:
        entry: The new entry; None if no fact passed.
        applied: Ids of the facts that it writes.
        refused: Facts that are not written, and why.
        superseded: Earlier facts that new facts replaced.
        facts: Those applied, as verified.
        already: Ids of facts that were in force before, and stay as they are.
        drift: The effect of all facts in force on held-out text; None if no fact passed.
        rewritten: How many facts in force had to be written again, because head learned since.
        lost: Ids of facts in force that were said before and are not now.
        known: Ids of those applied that were said without the edit.
        seconds: Wall time.
        before: The newest score of each task before the edit, over the test rows that `scores` has.
        scores: Of every task, with the edit.
        gate: What a gate says of each task's change; None where there is nothing to compare.
        warnings: Notices about the tasks' scores.
    """

    entry: str | None = None
    applied: tuple[str, ...] = ()
    refused: tuple[RefusedFact, ...] = ()
    superseded: tuple[SupersededFact, ...] = ()
    facts: tuple[FactLine, ...] = ()
    already: tuple[str, ...] = ()
    drift: Drift | None = None
    rewritten: int = 0
    lost: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    seconds: float = 0.0
    before: Mapping[str, ScoreSummary] = field(default_factory=dict)
    scores: Mapping[str, ScoreSummary] = field(default_factory=dict)
    gate: Verdict | None = None
    warnings: tuple[str, ...] = ()

    @property
    def lost_tasks(self) -> bool:
        """Whether a task lost, as `Verdict.losses` counts it."""
        return self.gate is not None and bool(self.gate.losses)

    @property
    def guards_fell(self) -> bool:
        """Whether guards that are enforced refuse the edit."""
        guards = self.gate.guards if self.gate else None
        return guards is not None and guards.enforced and guards.verdict == "fail"

    @property
    def note(self) -> EditNote:
        """What the entry notes of the edit."""
        return EditNote(
            self.applied, self.refused, self.superseded, self.rewritten, self.lost, self.known, self.seconds
        )

    @property
    def summary(self) -> EditSummary:
        """The result without what is measured of the facts."""
        return EditSummary(**{name.name: getattr(self, name.name) for name in fields(EditSummary)})


@dataclass(frozen=True)
class RevertResult(Record):
    """What a revert of facts did.

    Args:
        entry: The entry that took them out; an earlier one, if they were taken out before.
        reverted: The facts, and how each is answered now.
        lost: Ids of facts in force that were said before and are not now.
        already: Ids of the facts that were taken out before; nothing is recorded then.
        resolve: The others were solved again as if these had never been made.
        seconds: Wall time.
        facts: The facts still in force.
        drift: Their effect on held-out text.
        before: The newest score of each task before the revert, over the test rows that `scores` has.
        scores: Of every task, without the facts.
        gate: What a gate says of each task's change; None where there is nothing to compare.
        warnings: Notices about the tasks' scores.
    """

    entry: str
    reverted: tuple[RevertedFact, ...]
    lost: tuple[str, ...]
    already: tuple[str, ...]
    resolve: bool
    seconds: float
    facts: tuple[FactLine, ...]
    drift: Drift | None
    before: Mapping[str, ScoreSummary] = field(default_factory=dict)
    scores: Mapping[str, ScoreSummary] = field(default_factory=dict)
    gate: Verdict | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyResult(Record):
    """How head answers every fact in force.

    Args:
        entry: Head.
        facts: The facts, as verified.
        held: How many are said.
        lost: Ids of those that are not.
        drift: Their effect on held-out text; None where none is in force.
        seconds: Wall time.
    """

    entry: str
    facts: tuple[FactLine, ...]
    held: int
    lost: tuple[str, ...]
    drift: Drift | None
    seconds: float
