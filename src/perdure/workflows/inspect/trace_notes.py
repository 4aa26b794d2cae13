"""Traces and sweeps as notes of their entry, for the report."""

from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.core.errors import Busy
from perdure.core.records import from_store
from perdure.ledger import Entry, Ledger, writing
from perdure.ledger.records import Sweep, TracedAverage, TracedPrompt, TraceNotes

if TYPE_CHECKING:
    from perdure.workflows.session import Session

NOTE = "traces"
MOST = 8  # prompts whose traces are stored with an entry, newest first: some 25 KB each for 30 layers


def traces_at(ledger: Ledger, entry: Entry) -> TraceNotes | None:
    """Return the traces in the notes of an entry; None where there are none."""
    note = ledger.notes(entry.id).get(NOTE)
    return from_store(TraceNotes, note, f"the note {NOTE!r} of entry {entry.id[:12]}") if note else None


def store_note(session: "Session", entry: Entry, result: TracedPrompt | TracedAverage | Sweep) -> bool:
    """Store a result as a note of a recorded entry, for the report. Return whether it could be stored.

    The newest prompts are stored, one for each prompt and subject, and the newest average and sweep.
    """
    if entry.id not in {known.id for known in session.ledger.entries()}:
        return False
    try:
        with writing(session.ledger.root):
            note = _with(traces_at(session.ledger, entry) or TraceNotes(), result)
            session.ledger.annotate(entry.id, NOTE, note.to_json())
    except Busy:
        return False
    return True


def _with(note: TraceNotes, result: TracedPrompt | TracedAverage | Sweep) -> TraceNotes:
    """Return the note with one more result."""
    if isinstance(result, TracedAverage):
        return replace(note, average=result)
    if isinstance(result, Sweep):
        return replace(note, sweep=result)
    others = [old for old in note.prompts if (old.prompt, old.subject) != (result.prompt, result.subject)]
    return replace(note, prompts=(result, *others)[:MOST])
