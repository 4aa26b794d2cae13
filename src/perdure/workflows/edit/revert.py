"""Revert: a new entry without some of the facts in force, and the others verified again."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput, NotFound
from perdure.core.progress import Tick
from perdure.core.records import from_store
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import EditsRecord, FactLine, RevertedFact, RevertNote, WrittenFact
from perdure.workflows.author import sign
from perdure.workflows.edit.own_views import own_views, said_in, with_views
from perdure.workflows.edit.records import SHORTEST, VerifiedSet, make_record, matching, note_of, title_of
from perdure.workflows.edit.results import RevertResult
from perdure.workflows.edit.state import Place, entry_with, pruned
from perdure.workflows.fact_records import NOTE, record_at
from perdure.workflows.rescore import Rescore, rescore
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet
    from perdure.editing.facts import Fact
    from perdure.editing.measures import Verdict


def revert(
    session: Session,
    what: str,
    *,
    resolve: bool = False,
    tick: Tick | None = None,
    rescoring: Rescore = Rescore(),
) -> RevertResult:
    """Take facts out of head's state and record one entry; with the last fact the slot goes, and all is as before it.

    Args:
        session: Of the workspace.
        what: Id of a fact, or an entry of kind edit, which means all of its facts; the beginning of either will do.
        resolve: Solve the others again as if the facts had never been made. Else the update vanishes at their keys, and the
            others stay as they are.
        tick: Called with (what, done, total) as work goes on.
        rescoring: What is scored without the facts; where the weights are those of an earlier entry, its scores are looked up.

    What was taken out before stays out: nothing is recorded then, and the entry that took it out is returned.

    Raises:
        NotFound: Nothing has this name.
        BadInput: It cannot be separated from the rest, or a candidate is waiting.
    """
    with session.writing():
        began = time.perf_counter()
        parent = session.ledger.resolve("head")
        record = record_at(session.ledger, parent)
        if taken := taken_out(session.ledger, record, parent, what, resolve):
            return replace(taken, seconds=round(time.perf_counter() - began, 3))
        session.refuse_candidate()
        chosen = [line.fact for line in facts_meant(session.ledger, record, what, resolve)]
        place = Place.at(session, parent, tick)
        before = place.in_force(parent)
        made = _without(place, before, chosen, resolve)
        drift, norms = place.cost(made, parent) if made.live else (None, {})
        gone = [before.find(fact_id).fact for fact_id in chosen]
        fresh = _changed(before, made)
        verdicts = place.verify(made, [*[w.fact for w in made.live], *gone], full=fresh)
        data = {"facts": [fact.id for fact in gone], "resolve": resolve}
        entry = entry_with(parent, "revert", data, session.seed, place.store(made))
        title = title_of([fact.subject for fact in gone])
        after = make_record(title, VerifiedSet(made, verdicts, drift, norms, fresh), record)
        slots = session.ledger.slots(parent)
        after = with_views(after, record, said_in(place, own_views(slots, parent.base), made, fresh), slots)
        reverted = tuple(_reverted(fact, verdicts[fact.id], _left(before, made, fact.id)) for fact in gone)
        rescored = rescore(session, entry, rescoring, tick)
        lost = tuple(fact_id for fact_id in after.lost if fact_id in record.said)
        note = RevertNote(reverted, lost, (), resolve, round(time.perf_counter() - began, 3))
        about = {NOTE: note_of(session.ledger, parent, after).to_json(), "revert": note.to_json()}
        notes = {**about, **rescored.notes, **sign().notes}
        session.ledger.record(entry, notes, why=f"revert {title}")
        return RevertResult(
            entry=entry.id,
            reverted=reverted,
            lost=lost,
            already=(),
            resolve=resolve,
            seconds=note.seconds,
            facts=after.facts,
            drift=drift,
            before=rescored.before,
            scores=rescored.scores,
            gate=rescored.verdict,
            warnings=rescored.warnings,
        )


def _reverted(fact: "Fact", verdict: "Verdict", left: float) -> RevertedFact:
    return RevertedFact(fact.id, fact.subject, fact.target, verdict.prompt.said, verdict.prompt.preferred, left)


def taken_out(ledger: Ledger, record: EditsRecord, head: Entry, what: str, resolve: bool) -> RevertResult | None:
    """Return the result of the earlier revert of what `what` names; None if any of it is in force.

    A fact that was dropped is not yet what `resolve` makes of it.
    """
    entry = _entry_of(ledger, what)
    line = list(ledger.ancestors(head))
    named = list(entry.data["facts"]) if entry and entry.kind == "edit" and entry in line else []
    here = [one.fact for one in (*record.facts, *(record.dropped if resolve else ()))]
    if not named and len(what) >= SHORTEST:
        named = sorted({one for past in line for one in past.data.get("facts", ()) if one.startswith(what)})
    if not named or (entry is None and len(named) > 1) or any(one in here for one in named):
        return None
    last = next((past for past in line if set(named) & set(past.data.get("facts", ()))), None)
    if last is None or last.kind != "revert":
        return None
    note = from_store(RevertNote, ledger.notes(last.id)["revert"], f"the note 'revert' of entry {last.id[:12]}")
    return RevertResult(
        entry=last.id,
        reverted=tuple(one for one in note.reverted if one.fact in named),
        lost=(),
        already=tuple(named),
        resolve=last.data["resolve"],
        seconds=0.0,
        facts=record.facts,
        drift=record.drift,
    )


def facts_meant(ledger: Ledger, record: EditsRecord, what: str, resolve: bool) -> list[FactLine | WrittenFact]:
    """Return the lines of the facts that `what` names.

    Raises:
        NotFound: Nothing has this name.
        BadInput: Several have; or what it names cannot be taken out.
    """
    facts = matching(record, what)
    entry = _entry_of(ledger, what)
    if len(facts) > 1 or (facts and entry):
        raise BadInput(
            f"'{what}' begins several ids; give more digits ('perdure edits list' and 'perdure log' show them)"
        )
    if facts:
        return facts
    if entry is None:
        if away := _made_elsewhere(ledger, what):
            raise NotFound(_outside(away, f"fact {what[:12]}"))
        raise NotFound(f"no fact or entry '{what}'; 'perdure edits list' shows the facts, 'perdure log' the entries")
    if entry.kind != "edit":
        raise BadInput(_inseparable(entry, what))
    every = [*record.facts, *(record.dropped if resolve else ())]
    mine = [line for line in every if line.entry == entry.id]
    if not mine and entry not in ledger.ancestors(ledger.resolve("head")):
        raise NotFound(_outside(entry, f"edit {entry.id[:12]}"))
    if not mine:
        raise BadInput(f"none of the facts of entry {entry.id[:12]} is in force at head; there is nothing to revert")
    return mine


def _made_elsewhere(ledger: Ledger, fact: str) -> Entry | None:
    """Return the newest edit that made a fact whose id begins so and that head does not rest on."""
    if len(fact) < SHORTEST:
        return None
    line = {entry.id for entry in ledger.ancestors(ledger.resolve("head"))}
    made = [entry for entry in ledger.entries() if entry.kind == "edit" and entry.id not in line]
    return next((e for e in reversed(made) if any(one.startswith(fact) for one in e.data["facts"])), None)


def _outside(entry: Entry, what: str) -> str:
    """Say that head does not have what another line of entries has, and what can be done."""
    return (
        f"{what} is not in head's history: entry {entry.id[:12]} made it, and head was rolled back or went on without it, so "
        f"that nothing is to be taken out; 'perdure rollback {entry.id[:12]}' goes to the state that has it"
    )


def _entry_of(ledger: Ledger, what: str) -> Entry | None:
    try:
        return ledger.resolve(what)
    except NotFound:
        return None


def _inseparable(entry: Entry, what: str) -> str:
    """Say why an entry cannot be reverted, and what can be done."""
    name = entry.id[:12]
    if entry.kind == "base":
        return "the base model cannot be reverted; 'perdure rollback base' goes back to it"
    if entry.kind == "revert":
        task = entry.data.get("task")  # else it took facts out
        what, again = (f"task {task}", "learn it again") if task else ("facts", "edit them again")
        return f"entry {name} took {what} out; 'perdure rollback {name}~1' goes back to before it, or {again}"
    about = f" {entry.task}" if entry.task else ""
    return (
        f"entry {name} is a {entry.kind}{about}: what it changed lies in the same weights as what came after, and cannot be "
        f"taken out alone. 'perdure rollback {name}~1' goes back to before it, without all that came after; what is to stay "
        "can be learned or edited again from there"
    )


def _without(place: Place, edit_set: "EditSet", gone: list[str], resolve: bool) -> "EditSet":
    """Return the set without some facts, spread or written again where these must be."""
    if {w.id for w in edit_set.live} <= set(gone):
        return replace(edit_set, written=(), modules={})
    if not resolve:
        return pruned(place.pin(edit_set.drop(*gone)))
    made = edit_set.resolve(*gone)
    if made.unfinished:
        place.load()
        current = place.current(made)
        made = place.settle(made) if current is made else current
    return pruned(made)


def _changed(before: "EditSet", made: "EditSet") -> set[str]:
    """Return the live facts whose vectors changed since their last verification."""
    from perdure.editing.written import VECTORS

    old = {w.id: w for w in before.written}
    pairs = [(getattr(old[w.id], name), getattr(w, name), w.id) for w in made.live for name in VECTORS]
    return {fact_id for was, now, fact_id in pairs if not was.equal(now)}


def _left(before: "EditSet", after: "EditSet", fact_id: str) -> float:
    """Return the norm of the update at a fact's key, after over before, of the factors as they are stored.

    The key of a dropped fact is that of the model without the fact; see `Place.pin`.
    """
    import torch

    from perdure.maths.low_rank import Patch

    written = next((w for w in after.written if w.id == fact_id), before.find(fact_id))

    def at_key(patches: dict[str, Patch]) -> float:
        squares = torch.zeros(())
        for layer, key in zip(written.layers, written.keys, strict=True):
            if patch := patches.get(before.modules[layer]):
                squares = squares + (patch.up.double() @ (patch.down.double() @ key.double())).square().sum()
        return float(squares.sqrt())

    whole = at_key(before.patches())
    return at_key(after.patches()) / whole if whole else 0.0
