"""The log: every entry with its verdict, score, recipe, author and message, and the candidates that were discarded."""

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.core.records import from_store
from perdure.ledger.records import GATE, SIGNATURE, LearnRecord, LogEntry, LogLine, Signature, Verdict

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger


def log(ledger: "Ledger", *, every: bool = False) -> list[LogEntry]:
    """Return the entries, newest first.

    Args:
        ledger: The ledger.
        every: List the candidate that waits, and the candidates that were discarded and not made again, too.
    """
    lines, candidate = ledger.log(), ledger.candidate() if every else None
    entries = [ledger.entry(line.entry) for line in lines]
    records, gates, signed = (ledger.notes_with(name) for name in ("record", GATE, SIGNATURE))
    scores = _scores(ledger, [*entries, *([candidate] if candidate else [])])

    def of(line: LogLine, entry: "Entry") -> LogEntry:
        name = entry.id
        return _log_entry(line, entry, records.get(name), gates.get(name), signed.get(name), scores.get(name))

    listed = [of(line, entry) for line, entry in zip(lines, entries, strict=True)]
    if not every:
        return listed
    waiting = [of(_line(ledger, candidate), candidate)] if candidate else []
    known = {line.entry for line in (*listed, *waiting)}  # the same learn again makes the same id
    discarded = [line for line in ledger.discarded() if line.entry not in known]
    return [*waiting, *heapq.merge(listed, discarded, key=lambda line: line.discarded or line.time, reverse=True)]


def abandoned(ledger: "Ledger") -> list[LogEntry]:
    """Return the entries that no ref and no candidate reaches, and the candidates that were discarded, newest first."""
    names = {entry.id for entry in ledger.abandoned()}
    return [line for line in log(ledger, every=True) if line.discarded or line.entry in names]


def candidate_line(ledger: "Ledger", candidate: "Entry") -> LogEntry:
    """Return what the log lists of the candidate.

    Raises:
        BrokenStore: What is noted of it is damaged.
    """
    notes, score = ledger.notes(candidate.id), _scores(ledger, [candidate]).get(candidate.id)
    return _log_entry(
        _line(ledger, candidate), candidate, notes.get("record"), notes.get(GATE), notes.get(SIGNATURE), score
    )


def _line(ledger: "Ledger", candidate: "Entry") -> LogLine:
    return LogLine(
        candidate.id, candidate.parent, candidate.kind, candidate.task, ledger.candidate_since() or "", ("candidate",)
    )


def _scores(ledger: "Ledger", entries: "Iterable[Entry]") -> dict[str, float]:
    """Return the main score of each entry, by entry id, where all of it was measured; with one query for all.

    It is the score of the task that the entry learned, or the mean over all its tasks where it learned none.
    """
    cells: dict[str, list[tuple[str, str]]] = {}
    for entry in entries:
        tasks = [entry.task] if entry.task in entry.tasks else list(entry.tasks)
        seen = ledger.seen_by(entry, tasks)
        cells[entry.id] = [(seen[task], entry.tasks[task]) for task in tasks]
    every = {cell for line in cells.values() for cell in line}
    scores = ledger.scores({state for state, _ in every}, {version for _, version in every})
    return {
        name: sum(scores[cell].score for cell in line) / len(line)
        for name, line in cells.items()
        if line and all(cell in scores for cell in line)
    }


def _log_entry(line: LogLine, entry: "Entry", record: Any, gate: Any, signed: Any, score: float | None) -> LogEntry:
    where = f"of entry {entry.id[:12]}"
    learned = None if record is None else from_store(LearnRecord, record, f"note 'record' {where}")
    verdict = learned.gate if learned else gate and from_store(Verdict, gate, f"note '{GATE}' {where}")
    by = Signature() if signed is None else from_store(Signature, signed, f"note '{SIGNATURE}' {where}")
    return LogEntry(
        **vars(line),
        verdict=verdict.verdict if verdict else None,
        score=score,
        recipe=entry.recipe.get("name") if entry.recipe else None,
        author=by.author,
        message=by.message,
    )
