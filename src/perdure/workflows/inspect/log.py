"""The log: every entry with its verdict, score, recipe, author and message, and the candidates that were discarded."""

import heapq
from typing import TYPE_CHECKING, Any

from perdure.core.records import from_store
from perdure.ledger.records import SIGNATURE, LearnRecord, LogEntry, LogLine, Signature

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger


def log(ledger: "Ledger", *, every: bool = False) -> list[LogEntry]:
    """Return the entries, newest first.

    Args:
        ledger: The ledger.
        every: List the candidate that waits, and the candidates that were discarded, too.
    """
    records, signed = ledger.noted("record"), ledger.noted(SIGNATURE)

    def of(line: LogLine, entry: "Entry") -> LogEntry:
        return _log_entry(ledger, line, entry, records.get(entry.id), signed.get(entry.id))

    found = [of(line, ledger.entry(line.entry)) for line in ledger.log()]
    if not every:
        return found
    held = ledger.candidate()
    waiting = [of(_line(ledger, held), held)] if held else []
    return [
        *waiting,
        *heapq.merge(found, ledger.discarded(), key=lambda line: line.discarded or line.time, reverse=True),
    ]


def candidate_line(ledger: "Ledger", held: "Entry") -> LogEntry:
    """Return what the log lists of the candidate.

    Raises:
        BrokenStore: What is noted of it is damaged.
    """
    notes = ledger.notes(held.id)
    return _log_entry(ledger, _line(ledger, held), held, notes.get("record"), notes.get(SIGNATURE))


def _line(ledger: "Ledger", held: "Entry") -> LogLine:
    return LogLine(held.id, held.parent, held.kind, held.task, ledger.held_since() or "", ("candidate",))


def _log_entry(ledger: "Ledger", line: LogLine, entry: "Entry", record: Any, signed: Any) -> LogEntry:
    where = f"of entry {entry.id[:12]}"
    learned = None if record is None else from_store(LearnRecord, record, f"note 'record' {where}")
    by = Signature() if signed is None else from_store(Signature, signed, f"note '{SIGNATURE}' {where}")
    version = entry.tasks.get(entry.task or "")
    score = ledger.score(ledger.seen(entry, entry.task), version) if version else None
    return LogEntry(
        **vars(line),
        verdict=learned.gate.verdict if learned else None,
        score=score.score if score else None,
        recipe=entry.recipe.get("name") if entry.recipe else None,
        author=by.author,
        message=by.message,
    )
