"""The last checkup of an entry, as a note of it, for the report and the model card."""

from collections.abc import Sequence
from dataclasses import fields, replace

from perdure.core.errors import Busy
from perdure.ledger import Entry
from perdure.ledger.records import CHECKUP, Guard
from perdure.workflows.checkup.readings import abilities, knowledge, others
from perdure.workflows.checkup_records import Checkup, DriftReadings, last_checkup
from perdure.workflows.guards.measured import note_measured
from perdure.workflows.session import Session


def store_checkup(session: Session, entry: Entry, found: Checkup, guards: Sequence[Guard]) -> bool:
    """Store a checkup as a note of a recorded entry, with its guards. Return whether it could be stored.

    What it did not measure stays as the checkup before measured it; verdict and cost are the new ones.

    Args:
        session: Of the workspace.
        entry: The entry.
        found: The checkup.
        guards: The guards that it measured.
    """
    ledger = session.ledger
    if entry.id not in {known.id for known in ledger.entries()}:
        return False
    try:
        with session.writing():
            before = last_checkup(ledger, entry)
            ledger.annotate(entry.id, CHECKUP, found if before is None else joined(before, found))
            note_measured(ledger, entry, guards)
    except Busy:
        return False
    return True


def joined(before: Checkup, now: Checkup) -> Checkup:
    """Return a checkup with the readings of an earlier one of the same entry, where it has none of its own."""
    guards = {**before.guards, **now.guards}
    names = [field.name for field in fields(DriftReadings)]
    drift = {name: getattr(now.instruction_drift, name) or getattr(before.instruction_drift, name) for name in names}
    return replace(
        now,
        tasks=now.tasks or before.tasks,
        metrics=now.metrics or before.metrics,
        guards=guards,
        pretraining_abilities=abilities(guards),
        knowledge_retention=knowledge(guards),
        instruction_drift=DriftReadings(**drift),
        other=others(guards),
    )
