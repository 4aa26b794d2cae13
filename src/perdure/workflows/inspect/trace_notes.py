"""Traces and sweeps beside the entry that they are of, for the report."""

from typing import Any

from perdure.core.errors import Busy
from perdure.ledger import Entry, writing
from perdure.workflows.session import Session

Json = dict[str, Any]
NOTE = "traces"
KEPT = 8  # prompts whose traces stand beside an entry, newest first: some 25 KB each for 30 layers


def keep(session: Session, entry: Entry, what: str, found: Json) -> bool:
    """Note a result beside a recorded entry, for the report; return whether it could be noted.

    Of "prompts" the newest are kept, one for each prompt and subject; of anything else the newest one.
    """
    if entry.id not in {known.id for known in session.ledger.entries()}:
        return False
    try:
        with writing(session.ledger.root):
            note = session.ledger.notes(entry.id).get(NOTE) or {}
            if what == "prompts":
                others = [old for old in note.get(what, []) if _subject_of(old) != _subject_of(found)]
                note[what] = [found, *others][:KEPT]
            else:
                note[what] = found
            session.ledger.annotate(entry.id, NOTE, note)
    except Busy:
        return False
    return True


def _subject_of(found: Json) -> tuple[str, str]:
    return found["prompt"], found["subject"]
