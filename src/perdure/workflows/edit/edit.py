"""Edit: from facts to a new entry that says them, to one with those that passed, or to nothing at all."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perdure.core.progress import Tick
from perdure.editing.facts import Fact, refuse_repeats, superseded
from perdure.editing.spec import EditSpec
from perdure.workflows.edit.again import lost
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.own_views import own_views, said_in, with_views
from perdure.workflows.edit.records import NOTE, named, note_of, noted
from perdure.workflows.edit.request import EditRequest, Facts, Refused, facts_of, make_request
from perdure.workflows.edit.search import Outcome, search
from perdure.workflows.edit.state import Place, entry_with, pruned
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet

Json = dict[str, Any]


def edit(
    session: Session,
    facts: Facts,
    *,
    spec: EditSpec | None = None,
    gate: EditGate | None = EditGate(),
    tick: Tick | None = None,
) -> Json:
    """Write facts into head's state and record one entry with those that pass; the base model is never written.

    A fact that does not pass is tried again in other layers where the settings name none, and with another strength, and is
    then refused; the others are applied. Whatever stops this half-way leaves the ledger as it was.

    Args:
        session: Of the workspace.
        facts: A file of facts, one fact, or several; a fact may be its JSON object.
        spec: Settings; those of the facts in force, where there are some, else the defaults.
        gate: What a fact must show; None records whatever comes.
        tick: Called with (what, done, total) as work goes on.

    Returns:
        "entry" (None if no fact passed), "applied" (fact ids), "refused" ({"subject", "fact", "reason"} each), "superseded"
        ({"subject", "fact", "by"} each), "already" (ids of facts in force before, which stay as they are), "facts" (those
        applied, as verified), "drift", "rewritten" (facts in force that had to be written again because head learned since),
        "lost" (ids of facts in force that were said before and are not now), "known" (ids of those applied that were said
        without the edit) and "seconds".

    Raises:
        Busy: Another process writes to the workspace.
        BadInput: Facts that cannot be used, a model that cannot be edited, or a candidate is waiting.
    """
    given = facts_of(facts)
    refuse_repeats(given)
    session.refuse_editing()
    with session.writing():
        session.refuse_candidate()
        parent = session.ledger.resolve("head")
        place = Place.at(session, parent, tick)
        request = make_request(session, place, parent, given, spec, gate)
        began = time.perf_counter()
        outcome = search(place, request)
        if not outcome.applied:
            return _nothing_applied(request, outcome, time.perf_counter() - began)
        return _record(session, place, request, outcome, began)


def _nothing_applied(request: EditRequest, outcome: Outcome, seconds: float) -> Json:
    return {
        "entry": None,
        "applied": [],
        "refused": _refused(request, outcome),
        "superseded": [],
        "facts": [],
        "already": list(request.already),
        "drift": None,
        "rewritten": 0,
        "lost": [],
        "known": [],
        "seconds": round(seconds, 3),
    }


def _record(session: Session, place: Place, request: EditRequest, outcome: Outcome, began: float) -> Json:
    """Store the set, record an entry with it, and move head there; return what `edit` does."""
    ledger, applied, made = session.ledger, outcome.applied, pruned(outcome.edit_set)
    ids = [fact.id for fact in applied]
    data = {"facts": ids, "spec": request.spec.to_json()}
    entry = entry_with(request.parent, "edit", data, session.seed, place.keep(made))
    note = noted(
        named([fact.subject for fact in applied]),
        made,
        outcome.verdicts,
        request.record,
        outcome.drift,
        outcome.norms,
        dict.fromkeys(ids, entry.id),
        outcome.full,
    )
    slots = ledger.slots(request.parent)
    written = [w.id for w in made.live] if outcome.rewritten else ids
    said = said_in(place, own_views(slots, entry.base), made, written)
    note = with_views(note, request.record, said, slots)
    told = {
        "entry": entry.id,
        "applied": ids,
        "refused": _refused(request, outcome),
        "superseded": _superseded(request.held, made, applied),
        "facts": [line for line in note["facts"] if line["fact"] in ids],
        "already": list(request.already),
        "drift": outcome.drift,
        "rewritten": outcome.rewritten,
        "lost": lost(outcome.verdicts, request.said),
        "known": [fact.id for fact in applied if outcome.before[fact.id].prompt.said],
        "seconds": round(time.perf_counter() - began, 3),
    }
    beside = {key: told[key] for key in ("applied", "refused", "superseded", "rewritten", "lost", "known", "seconds")}
    notes = {NOTE: note_of(ledger, request.parent, note), "edit": beside}
    ledger.record(entry, notes, why=f"edit {note['about']}")
    return told


def _refused(request: EditRequest, outcome: Outcome) -> list[Json]:
    later = [Refused.of(fact, outcome.why[fact.id]) for fact in request.fresh if fact.id in outcome.why]
    return [one.to_json() for one in (*request.refused, *later)]


def _superseded(held: "EditSet", made: "EditSet", applied: Sequence[Fact]) -> list[dict[str, str]]:
    """Return the facts in force before whose place new ones took."""
    now = {w.id for w in made.live}
    gone = [w.fact for w in held.live if w.id not in now]
    pairs = [(old, new) for new in applied for old in superseded(new, gone)]
    return [{"subject": old.subject, "fact": old.id, "by": new.id} for old, new in pairs]
