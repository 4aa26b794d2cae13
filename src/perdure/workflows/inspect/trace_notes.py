"""Traces and sweeps beside the entry that they are of, for the report."""

from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.core.errors import Busy
from perdure.core.records import from_store
from perdure.ledger import Entry, Ledger, writing
from perdure.ledger.records import Sweep, TracedAverage, TracedPrompt, TraceNotes

if TYPE_CHECKING:
    from perdure.workflows.session import Session

NOTE = "traces"
MOST = 8  # prompts whose traces are kept with an entry, newest first: some 25 KB each for 30 layers


def traces_at(ledger: Ledger, entry: Entry) -> TraceNotes | None:
    """Return the traces that are noted beside an entry; None where none was."""
    note = ledger.notes(entry.id).get(NOTE)
    return from_store(TraceNotes, note, f"the note {NOTE!r} of entry {entry.id[:12]}") if note else None


def keep(session: "Session", entry: Entry, found: TracedPrompt | TracedAverage | Sweep) -> bool:
    """Note a result beside a recorded entry, for the report; return whether it could be noted.

    Of prompts the newest are kept, one for each prompt and subject; of averages and sweeps the newest one.
    """
    if entry.id not in {known.id for known in session.ledger.entries()}:
        return False
    try:
        with writing(session.ledger.root):
            note = _with(traces_at(session.ledger, entry) or TraceNotes(), found)
            session.ledger.annotate(entry.id, NOTE, note.to_json())
    except Busy:
        return False
    return True


def _with(note: TraceNotes, found: TracedPrompt | TracedAverage | Sweep) -> TraceNotes:
    """Return the note with one more result."""
    if isinstance(found, TracedAverage):
        return replace(note, average=found)
    if isinstance(found, Sweep):
        return replace(note, sweep=found)
    others = [old for old in note.prompts if (old.prompt, old.subject) != (found.prompt, found.subject)]
    return replace(note, prompts=(found, *others)[:MOST])
