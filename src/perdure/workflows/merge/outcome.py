"""What a merge answers, and how its entry is recorded."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perdure.core.errors import Interrupted
from perdure.core.progress import Tick
from perdure.core.records import Record, omitted
from perdure.evaluate.routing import RoutingAccuracy
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import GATE, MERGE, GateOff, MergeNote, ScoreSummary, Signature, Verdict
from perdure.workflows.edit.carry import Carried
from perdure.workflows.fact_records import NOTE
from perdure.workflows.guards.attach import Mode
from perdure.workflows.guards.judge import skipped_note
from perdure.workflows.merge.judge import Judged


@dataclass(frozen=True)
class MergeResult(Record):
    """What `merge --json` prints.

    Args:
        entry: Id of the entry, or of the candidate.
        rank: Rank of the merged adapter.
        how: How the adapters were merged; "drop" where nothing was merged, and own adapters were dropped.
        gate: What the gate decided.
        scores: Score of each task through the merged adapter.
        before: Score of each task at head before, as requests for it go there.
        moved: Whether head moved to the entry.
        tasks: Tasks whose adapters were merged, those of a sum under the others included; or dropped.
        kept: Those of them whose own adapters stay.
        error: Relative error of the truncation; see `MergeNote`.
        warnings: What the user should know.
        seconds: Wall time.
        rows: Rows that the merged adapter was trained on afterwards.
        routed: Score of every task where no request names it; None without a router.
        routing: How many test rows found their task; None without a router.
    """

    entry: str
    rank: int
    how: str
    gate: Verdict | GateOff
    scores: Mapping[str, ScoreSummary]
    before: Mapping[str, ScoreSummary]
    moved: bool
    tasks: tuple[str, ...]
    kept: tuple[str, ...]
    error: float
    warnings: tuple[str, ...]
    seconds: float
    rows: int = omitted(0)
    routed: Mapping[str, ScoreSummary] | None = omitted(None)
    routing: RoutingAccuracy | None = omitted(None)


def reporting(tick: Tick | None, stop: Callable[[], str | None]) -> Tick:
    """Return a tick that raises Interrupted once a signal asked to stop."""

    def report(what: str, done: int, total: int) -> None:
        if signal := stop():
            raise Interrupted(f"stopped by {signal} while {what}; run the same command again")
        if tick:
            tick(what, done, total)

    return report


def record_merge(
    ledger: Ledger,
    entry: Entry,
    note: MergeNote,
    judged: Judged,
    carried: Carried | None,
    signature: Signature,
    mode: Mode,
) -> None:
    """Move head to the entry of a merge; where the gate refuses it, the entry becomes the candidate."""
    notes: dict[str, object] = {
        MERGE: note.to_json(),
        **({GATE: judged.evidence.verdict.to_json(), "evidence": judged.evidence} if judged.evidence else {}),
        **signature.notes,
        **skipped_note(ledger, mode),
        **({NOTE: carried.note.to_json()} if carried else {}),
    }
    if judged.failed:
        ledger.put_candidate(entry, notes)
    else:
        ledger.record(entry, notes, why=f"merge {note.about}")


def result_of(entry: Entry, note: MergeNote, judged: Judged, began: float) -> MergeResult:
    """Return what a merge that was recorded answers.

    Args:
        entry: Its entry.
        note: What it notes of itself.
        judged: What the gate decided.
        began: `time.perf_counter()` when it began.
    """
    return MergeResult(
        entry=entry.id,
        rank=note.rank,
        how=note.how,
        gate=judged.verdict,
        scores=note.scores,
        before=note.before,
        moved=not judged.failed,
        tasks=note.tasks,
        kept=note.kept,
        error=note.error,
        warnings=note.warnings,
        seconds=round(time.perf_counter() - began, 3),
        rows=note.rows,
        routed={name: score.summary for name, score in judged.routed.items()} or None,
        routing=judged.routing,
    )
