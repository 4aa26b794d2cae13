"""Edit: write facts, and record an entry with those that pass."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure.core.progress import Tick
from perdure.editing.facts import Fact, refuse_repeats, superseded
from perdure.editing.spec import EditSpec
from perdure.ledger.integrity import needed_objects
from perdure.ledger.records import RefusedFact, Signature, SupersededFact
from perdure.workflows.author import sign
from perdure.workflows.edit.again import lost
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.outcome import Outcome
from perdure.workflows.edit.own_views import own_views, said_in, with_views
from perdure.workflows.edit.records import VerifiedSet, make_record, note_of, title_of
from perdure.workflows.edit.request import EditRequest, Facts, facts_of, make_request, refused
from perdure.workflows.edit.results import EditResult
from perdure.workflows.edit.search import search
from perdure.workflows.edit.state import Place, entry_with, pruned
from perdure.workflows.fact_records import NOTE
from perdure.workflows.rescore import Rescore, Rescored, rescore
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet


def edit(
    session: Session,
    facts: Facts,
    *,
    spec: EditSpec | None = None,
    gate: EditGate | None = EditGate(),
    tick: Tick | None = None,
    message: str | None = None,
    rescoring: Rescore = Rescore(),
) -> EditResult:
    """Write facts into head's state and record one entry with the facts that pass. The base model is never written.

    A fact that does not pass is tried again in other layers where the settings name none, and with another strength, and is
    then refused; the others are applied. Then every task is scored. Whatever stops this half-way leaves the ledger as it was.

    Args:
        session: Of the workspace.
        facts: A file of facts, one fact, or several; a fact may be its JSON object.
        spec: Settings; those of the facts in force, where there are some, else the defaults.
        gate: What a fact must show; None records every fact.
        tick: Called with (what, done, total) as work goes on.
        message: Text to store with the entry and its author.
        rescoring: What is scored with the edit, and whether a task's loss refuses it.

    Raises:
        Busy: Another process writes to the workspace.
        BadInput: Facts that cannot be used, a model that cannot be edited, or a candidate is waiting.
    """
    signature = sign(message)
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
        return _record(session, place, request, outcome, began, signature, rescoring)


def _nothing_applied(request: EditRequest, outcome: Outcome, seconds: float) -> EditResult:
    return EditResult(refused=_refused(request, outcome), already=request.already, seconds=round(seconds, 3))


def _record(
    session: Session,
    place: Place,
    request: EditRequest,
    outcome: Outcome,
    began: float,
    signature: Signature,
    rescoring: Rescore,
) -> EditResult:
    """Store the set, score the tasks, record an entry and move head there; return what `edit` does.

    Where a task's loss refuses the edit, no entry is recorded, and the set is deleted again.
    """
    ledger, applied, made = session.ledger, outcome.applied, pruned(outcome.edit_set)
    ids = tuple(fact.id for fact in applied)
    data = {"facts": list(ids), "spec": request.spec.to_json()}
    stored = ledger.objects.all()
    entry = entry_with(request.parent, "edit", data, session.seed, place.store(made))
    prompts = [text for fact in applied for text in (fact.prompt, *fact.paraphrases)]
    rescored = rescore(session, entry, rescoring, place.tick, prompts)
    if rescored.refused:
        answered = needed_objects(
            ledger.objects, (), ledger.guards()
        )  # by a guard's reference, which the scoring stored
        for name in ledger.objects.all() - stored - answered:
            ledger.objects.remove(name)
        return _refused_by_tasks(request, outcome, rescored, time.perf_counter() - began)
    title = title_of([fact.subject for fact in applied])
    verified = VerifiedSet(made, outcome.verdicts, outcome.drift, outcome.norms, outcome.full)
    record = make_record(title, verified, request.record, dict.fromkeys(ids, entry.id))
    slots = ledger.slots(request.parent)
    written = [w.id for w in made.live] if outcome.rewritten else ids
    said = said_in(place, own_views(slots, entry.base), made, written)
    record = with_views(record, request.record, said, slots)
    result = EditResult(
        entry=entry.id,
        applied=ids,
        refused=_refused(request, outcome),
        superseded=_superseded(request.in_force, made, applied),
        facts=tuple(line for line in record.facts if line.fact in ids),
        already=request.already,
        drift=outcome.drift,
        rewritten=outcome.rewritten,
        lost=tuple(lost(outcome.verdicts, request.record.said)),
        known=tuple(fact.id for fact in applied if outcome.before[fact.id].prompt.said),
        seconds=round(time.perf_counter() - began, 3),
        before=rescored.before,
        scores=rescored.scores,
        gate=rescored.verdict,
        warnings=rescored.warnings,
    )
    about = {NOTE: note_of(ledger, request.parent, record).to_json(), "edit": result.note.to_json()}
    notes = {**about, **rescored.notes, **signature.notes}
    ledger.record(entry, notes, why=f"edit {record.about}")
    return result


def _refused_by_tasks(request: EditRequest, outcome: Outcome, rescored: Rescored, seconds: float) -> EditResult:
    """Return what `edit` does where the facts pass and a task lost too much."""
    return EditResult(
        refused=(*_refused(request, outcome), *(refused(fact, rescored.loss) for fact in outcome.applied)),
        already=request.already,
        seconds=round(seconds, 3),
        before=rescored.before,
        scores=rescored.scores,
        gate=rescored.verdict,
        warnings=rescored.notices,
    )


def _refused(request: EditRequest, outcome: Outcome) -> tuple[RefusedFact, ...]:
    later = [refused(fact, outcome.why[fact.id]) for fact in request.fresh if fact.id in outcome.why]
    return (*request.refused, *later)


def _superseded(before: "EditSet", made: "EditSet", applied: Sequence[Fact]) -> tuple[SupersededFact, ...]:
    """Return the earlier facts that new facts replaced."""
    now = {w.id for w in made.live}
    gone = [w.fact for w in before.live if w.id not in now]
    pairs = [(old, new) for new in applied for old in superseded(new, gone)]
    return tuple(SupersededFact(old.subject, old.id, new.id) for old, new in pairs)
