"""Facts after a learn: verify them on the new state, and write them again if some are lost.

A learn trains without the edits, since a fact's vectors belong to the state that they were computed on. Then the edits are
loaded with the new adapter, unchanged. If every fact that was said before is still said, the edits stay. Else all facts are
written again on the new state. Facts that are lost even then are tried in other layers and with another strength. A new set
that changes other text by much more than the old set is not used: its facts stay lost, and the gate judges that.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput, Diverged
from perdure.core.progress import Tick
from perdure.core.slots import EDITS, view_of
from perdure.ledger import Entry
from perdure.ledger.records import Drift, EditsNote, EditsRecord, FactKept
from perdure.workflows.edit.again import Verdicts, lost, strengthened
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.own_views import own_views, said_in, with_views
from perdure.workflows.edit.records import VerifiedSet, first_specs, lost_by_task, make_record, note_of
from perdure.workflows.edit.results import VerifyResult
from perdure.workflows.edit.state import Place
from perdure.workflows.fact_records import VERIFIED, record_at
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet


@dataclass(frozen=True)
class Carried:
    """The facts of a parent on a new state.

    Args:
        slot: Object of the set that was written again; None if it stays as it is.
        note: The note about the facts at the new entry: the changes to the note before.
        facts: The facts for the gate to judge.
        warnings: For people: facts that were written again, or are no longer said.
    """

    slot: str | None
    note: EditsNote
    facts: tuple[FactKept, ...]
    warnings: tuple[str, ...]


def carry(session: Session, parent: Entry, slots: Mapping[str, str | None], tick: Tick | None = None) -> Carried | None:
    """Return the facts in force at `parent` on the state of a learn that left `slots`; None if there are none.

    Cost: a verification, and one of the prompts alone with each task's own adapter that this changes. If a fact is lost,
    all facts are written again and verified with every adapter, and held-out text is read. See also `strengthened`.
    """
    known = session.ledger.slots(parent)
    if EDITS not in known:
        return None
    after = {name: verdicts_again for name, verdicts_again in sorted({**known, **slots}.items()) if verdicts_again}
    place = Place(
        session, {name: verdicts_again for name, verdicts_again in view_of(after).items() if name != EDITS}, tick
    )
    record, edit_set = record_at(session.ledger, parent), place.in_force(parent)
    said = record.said
    verdicts: Verdicts = place.verify(edit_set)
    slot, warnings = None, []
    if missing := lost(verdicts, said):
        again, verdicts_again, problem = _written_again(place, parent, edit_set, verdicts, said, record)
        if problem:
            warnings.append(f"{len(missing)} edited facts were lost and cannot be written again: {problem}")
        elif len(lost(verdicts_again, said)) <= len(missing):
            warnings.append(
                f"{len(missing)} of {len(edit_set.live)} edited facts were lost, so that all were written again"
            )
            edit_set, verdicts, slot = again, verdicts_again, place.store(again)
    gone = lost(verdicts, said)
    if names := [line.subject for line in record.facts if line.fact in gone]:
        warnings.append(f"edited facts that are no longer said: {', '.join(names)}; edit them again")
    drift, norms = place.cost(edit_set, parent)
    views = own_views(after, parent.base, known if slot is None else None)
    said_there = said_in(place, views, edit_set, [w.id for w in edit_set.live])
    made = make_record(record.about, VerifiedSet(edit_set, verdicts, drift, norms), record)
    made = with_views(made, record, said_there, after)
    warnings += _newly_lost_in_tasks(made, record)
    note = note_of(session.ledger, parent, made, rewritten=slot is not None)
    return Carried(slot, note, _judged(record, verdicts), tuple(warnings))


def _newly_lost_in_tasks(record: EditsRecord, before: EditsRecord) -> list[str]:
    """Return warnings of facts that are now lost with the adapter of a task, and were not before."""
    known = lost_by_task(before.facts)
    return [
        f"with the adapter of {task} these edited facts are not said: {', '.join(subjects)}; add rows that say them to the task, "
        "where requests for it ask for them"
        for task, subjects in lost_by_task(record.facts).items()
        if not set(subjects) <= set(known.get(task, []))
    ]


def _too_far(before: Drift | None, now: Drift) -> str | None:
    """Return why facts written again change too much: their drift exceeds that at the parent by the limit of an edit."""
    rise = max(before.rise, 0.0) if before else 0.0
    return EditGate(perplexity=rise + EditGate().perplexity).too_far(now)


def _judged(record: EditsRecord, verdicts: Verdicts) -> tuple[FactKept, ...]:
    """Return what the gate judges of each fact in force."""
    return tuple(
        FactKept(line.fact, line.prompt, line.target, line.efficacy, verdicts[line.fact].efficacy)
        for line in record.facts
        if line.fact in verdicts
    )


def _written_again(
    place: Place,
    parent: Entry,
    edit_set: "EditSet",
    verdicts: Verdicts,
    said: Sequence[str],
    record: EditsRecord,
) -> "tuple[EditSet, Verdicts, str | None]":
    """Return the set written on the state loaded at `place`, how it answers, and why it cannot be taken, if so."""
    place.load()
    try:
        again = place.current(edit_set)
        plain = again, place.verify(again)
    except (BadInput, Diverged) as error:  # two keys that differed before are almost equal there
        return edit_set, verdicts, str(error)
    strong = strengthened(place, *plain, said, first_specs(place.session.ledger, record))
    far = _too_far(record.drift, place.cost(strong[0], parent)[0])
    if far and strong[0] is not again and not _too_far(record.drift, place.cost(again, parent)[0]):
        return *plain, None
    return *strong, far


def verify_edits(session: Session, tick: Tick | None = None) -> VerifyResult:
    """Verify every fact in force on head, and store the result as a note of head.

    Raises:
        Busy: Another process writes to the workspace.
    """
    with session.writing():
        began = time.perf_counter()
        head = session.ledger.resolve("head")
        before, place = record_at(session.ledger, head), Place.at(session, head, tick)
        edit_set = place.in_force(head)
        drift, norms = place.cost(edit_set, head) if edit_set.live else (None, {})
        verdicts, slots = place.verify(edit_set), session.ledger.slots(head)
        said = said_in(place, own_views(slots, head.base), edit_set, [w.id for w in edit_set.live])
        record = make_record(before.about, VerifiedSet(edit_set, verdicts, drift, norms), before)
        record = with_views(record, before, said, slots)
        if edit_set.written:
            note = note_of(session.ledger, head, record, rewritten=before.rewritten)
            session.ledger.annotate(head.id, VERIFIED, note.to_json())
        return VerifyResult(
            head.id, record.facts, len(record.said), tuple(record.lost), drift, round(time.perf_counter() - began, 3)
        )
