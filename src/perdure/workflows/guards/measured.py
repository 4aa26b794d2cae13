"""Guards that a checkup measured and the workspace does not have: notes of the entry, by which `gc` keeps rows and scores."""

from collections.abc import Sequence

from perdure.core.records import from_store
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import CHECKED, CheckedGuards, Guard


def measured_guards(ledger: Ledger, entry: Entry) -> tuple[Guard, ...]:
    """Return the guards that checkups of an entry measured, as they were then, without those that the workspace has by now."""
    own = {guard.name for guard in ledger.guards()}
    note = ledger.note(entry.id, CHECKED, CheckedGuards)
    return tuple(guard for guard in note.guards if guard.name not in own) if note else ()


def note_measured(ledger: Ledger, entry: Entry, guards: Sequence[Guard]) -> None:
    """Note guards with a recorded entry; of one that was measured before, the newer definition is noted.

    Args:
        ledger: The ledger; the caller holds its lock.
        entry: The entry.
        guards: The guards, those of the workspace among them, which are not noted.
    """
    own = {guard.name for guard in ledger.guards()}
    known = {guard.name: guard for guard in measured_guards(ledger, entry)}
    found = known | {guard.name: guard for guard in guards if guard.name not in own}
    if found != known:
        ledger.annotate(entry.id, CHECKED, CheckedGuards(tuple(found.values())))


def forget_measured(ledger: Ledger, name: str) -> Guard | None:
    """Take a guard out of the notes of all entries, and return it as it was noted last; None where no note has it.

    Args:
        ledger: The ledger; the caller holds its lock.
        name: Name of the guard.
    """
    gone = None
    for entry, value in ledger.notes_with(CHECKED).items():
        note = from_store(CheckedGuards, value, f"note '{CHECKED}' of entry {entry[:12]}")
        rest = tuple(guard for guard in note.guards if guard.name != name)
        if rest != note.guards:
            gone = next(guard for guard in note.guards if guard.name == name)
            ledger.annotate(entry, CHECKED, CheckedGuards(rest))
    return gone
