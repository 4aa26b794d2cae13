"""The facts in force at an entry, from the notes of the entries before it. Reading them needs neither torch nor a model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from perdure.core.records import from_store
from perdure.ledger.records import EditsNote, EditsRecord, FactLine

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger

NOTE, VERIFIED = "edits", "edits verified"
NOTHING = EditsRecord()


def record_at(ledger: "Ledger", entry: "Entry") -> EditsRecord:
    """Return what was last measured of the facts in force at an entry; without facts if it has no edits."""
    return along(ledger, reversed(ledger.ancestors(entry)))[-1][1]


def records(ledger: "Ledger", line: Iterable["Entry"]) -> list[EditsRecord]:
    """Return the record at each entry of a line that begins at the base."""
    return [verified for _, verified in along(ledger, line)]


def along(ledger: "Ledger", line: Iterable["Entry"]) -> list[tuple[EditsRecord, EditsRecord]]:
    """Return the record at each entry as it was written, on which the next one follows, and as it was last verified."""
    notes = {name: ledger.notes_with(name) for name in (NOTE, VERIFIED)}

    def applied(record: EditsRecord, name: str, entry: str) -> EditsRecord:
        if entry not in notes[name]:
            return record
        where = f"the note {name!r} of entry {entry[:12]}"
        return changed(record, from_store(EditsNote, notes[name][entry], where))

    record, pairs = NOTHING, []
    for entry in line:
        if NOTE in entry.slots and entry.id not in notes[NOTE]:  # an entry without a note takes the slot away
            record = NOTHING
        record = applied(record, NOTE, entry.id)
        pairs.append((record, applied(record, VERIFIED, entry.id)))
    return pairs


def changed(before: EditsRecord, note: EditsNote) -> EditsRecord:
    """Return the record of which `changes` gave the note."""
    lines = {name: line for name, line in before.every.items() if name not in note.gone}
    lines |= {line.fact: line for line in note.lines}
    every = [lines[name] for name in (lines if note.order is None else note.order)]
    return EditsRecord(
        about=note.about,
        facts=tuple(line for line in every if isinstance(line, FactLine)),
        dropped=tuple(line for line in every if not isinstance(line, FactLine)),
        drift=note.drift,
        norms=note.norms,
        rewritten=bool(note.rewritten),
    )
