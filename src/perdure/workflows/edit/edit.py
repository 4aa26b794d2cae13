"""Edit: from facts to a new entry that says them, to one with those that passed, or to nothing at all."""

import time
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.editing.facts import Fact, read_facts, refuse_repeats, superseded
from perdure.editing.spec import EditSpec
from perdure.ledger import Entry
from perdure.workflows.edit.again import lost
from perdure.workflows.edit.draft import Draft, Drafting
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.records import NOTE, asked_specs, named, note_of, noted, record_at
from perdure.workflows.edit.state import Place, pruned
from perdure.workflows.session import Session
from perdure.workflows.slots import EDITS

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet

SOLVED = ("emmet", "rome", "memit", "alphaedit")  # methods whose facts can be taken out again
CONTEXTS = 0.25  # share of a model's positions that is left to the contexts around a fact's texts
Facts = str | PathLike[str] | Fact | Mapping[str, Any] | Iterable[Fact | Mapping[str, Any]]


def edit(
    session: Session,
    facts: Facts,
    *,
    spec: EditSpec | None = None,
    gate: EditGate | None = EditGate(),
    tick: Tick | None = None,
) -> dict[str, Any]:
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
    asked = facts_of(facts)
    refuse_repeats(asked)
    session.refuse_editing()
    with session.writing():
        session.refuse_candidate()
        return _Edit(session, asked, spec, gate, tick).run()


def facts_of(given: Facts) -> list[Fact]:
    """Return facts from a file, from their JSON, or as they are.

    Raises:
        BadInput: There is none, or one is not valid.
    """
    if isinstance(given, str | PathLike):
        found = read_facts(Path(given))
    else:
        several = list(given) if isinstance(given, Iterable) and not isinstance(given, Mapping) else [given]
        found = [Fact.from_json(fact.to_json() if isinstance(fact, Fact) else fact) for fact in several]
    if not found:
        raise BadInput("there is no fact to edit; give one at least")
    return found


class _Edit:
    """The steps of one edit, in the order `run` names them."""

    def __init__(
        self, session: Session, facts: Sequence[Fact], spec: EditSpec | None, gate: EditGate | None, tick: Tick | None
    ):
        from perdure.editing.prompts import texts_of, too_long

        self.session, self.ledger, self.gate = session, session.ledger, gate
        self.parent = session.ledger.resolve("head")
        self.place = Place.at(session, self.parent, tick)
        self.record = record_at(session.ledger, self.parent)
        self.held = self.place.in_force(self.parent)
        self.seed = session.seed
        self.spec = spec or usual_spec(session, self.held)
        if self.spec.method not in SOLVED:
            raise BadInput(f"method {self.spec.method} leaves no edit set; choose one of {', '.join(SOLVED)}")
        refuse_layers(session, self.spec)
        live = {w.id for w in self.held.live}
        self.already = [fact.id for fact in facts if fact.id in live]
        facts, why = [fact for fact in facts if fact.id not in live], {}
        if facts:  # else no model is needed
            positions = session.runtime.base.positions
            why = {f.id: long for f in facts if (long := too_long(session.tokenizer, texts_of(f), positions, CONTEXTS))}
        self.fresh = [fact for fact in facts if fact.id not in why]
        self.refused = [_refusal(fact, why[fact.id]) for fact in facts if fact.id in why]
        self.said = [line["fact"] for line in self.record["facts"] if line["efficacy"]]

    def run(self) -> dict[str, Any]:
        began = time.perf_counter()
        asked_for = asked_specs(self.ledger, self.record)
        drafting = Drafting(self.place, self.parent, self.fresh, self.held, self.said, asked_for, self.spec, self.gate)
        draft = drafting.run() if self.fresh else Draft(self.held)
        applied = [fact for fact in self.fresh if fact.id not in draft.why]
        self.refused += [_refusal(fact, draft.why[fact.id]) for fact in self.fresh if fact.id in draft.why]
        told: dict[str, Any] = {"entry": None, "applied": [], "refused": self.refused, "superseded": [], "facts": []}
        told |= {"already": self.already, "drift": None, "rewritten": 0, "lost": [], "known": []}
        if not applied:
            return {**told, "seconds": round(time.perf_counter() - began, 3)}
        made = pruned(draft.edit_set)
        entry = self._entry(made, applied)
        title, owners = named([f.subject for f in applied]), dict.fromkeys([fact.id for fact in applied], entry.id)
        note = noted(
            title, made, drafting.verdicts, self.record, drafting.drift, drafting.norms, owners, drafting.full()
        )
        mine = {fact.id for fact in applied}
        told |= {
            "entry": entry.id,
            "applied": [fact.id for fact in applied],
            "superseded": self._superseded(made, applied),
            "facts": [line for line in note["facts"] if line["fact"] in mine],
            "drift": drafting.drift,
            "rewritten": drafting.rewritten,
            "lost": lost(drafting.verdicts, self.said),
            "known": [fact.id for fact in applied if drafting.before[fact.id].prompt.said],
            "seconds": round(time.perf_counter() - began, 3),
        }
        beside = {
            key: told[key] for key in ("applied", "refused", "superseded", "rewritten", "lost", "known", "seconds")
        }
        self.ledger.record(
            entry, {NOTE: note_of(self.ledger, self.parent, note), "edit": beside}, why=f"edit {note['about']}"
        )
        return told

    def _entry(self, made: "EditSet", applied: Sequence[Fact]) -> Entry:
        """Store the set and return the entry that is to be recorded."""
        parent = self.parent
        return Entry(
            parent=parent.id,
            kind="edit",
            base=parent.base,
            tasks=parent.tasks,
            data={"facts": [fact.id for fact in applied], "spec": self.spec.to_json()},
            seed=self.seed,
            slots={EDITS: self.place.keep(made)},
            memory=parent.memory,
            columns=parent.columns,
            state=parent.state,
        )

    def _superseded(self, made: "EditSet", applied: Sequence[Fact]) -> list[dict[str, str]]:
        """Return the facts in force before whose place new ones took."""
        now = {w.id for w in made.live}
        gone = [w.fact for w in self.held.live if w.id not in now]
        pairs = [(old, new) for new in applied for old in superseded(new, gone)]
        return [{"subject": old.subject, "fact": old.id, "by": new.id} for old, new in pairs]


def usual_spec(session: Session, edit_set: "EditSet | None" = None) -> EditSpec:
    """Return the settings of the facts in force at head, which one joint solve shares, else the defaults."""
    seed = session.seed
    head = session.ledger.resolve("head")
    held = edit_set or Place.at(session, head).in_force(head)
    if not held.live:
        return EditSpec(seed=seed)
    first = held.live[0].spec
    return EditSpec(seed=seed, method=first.method, gain=first.gain, ridge=first.ridge, energy=first.energy)


def refuse_layers(session: Session, spec: EditSpec) -> None:
    """Refuse layers that the model does not have, before it is loaded.

    Raises:
        BadSpec: One is beyond it, or a method that writes into one layer got several.
    """
    from perdure.bridges.sizes import shape_of

    layers = shape_of(session.base_folder).layers
    if spec.layers and layers is not None:
        spec.at(layers)


def _refusal(fact: Fact, reason: str) -> dict[str, str]:
    return {"subject": fact.subject, "fact": fact.id, "reason": reason}
