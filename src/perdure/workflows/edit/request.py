"""The request of an edit, checked before anything is written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput
from perdure.editing.facts import Fact, read_facts
from perdure.editing.spec import EditSpec
from perdure.ledger import Entry
from perdure.ledger.records import EditsRecord, RefusedFact
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.records import first_specs
from perdure.workflows.edit.state import Place
from perdure.workflows.fact_records import record_at
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet

SOLVED = ("emmet", "rome", "memit", "alphaedit")  # methods whose facts can be taken out again
CONTEXTS = 0.25  # share of a model's positions that is left to the contexts around a fact's texts
Facts = str | PathLike[str] | Fact | Mapping[str, Any] | Iterable[Fact | Mapping[str, Any]]


@dataclass(frozen=True)
class EditRequest:
    """Facts to write on head.

    Args:
        parent: Head.
        record: The last verification of the facts in force there.
        in_force: Those facts.
        fresh: The facts to write.
        already: Ids of facts given that are in force already.
        refused: Facts given that cannot be written at all.
        spec: Settings.
        gate: What a fact must show; None lets every fact pass.
        first_specs: Settings that the edits of the facts in force were begun with, by id.
    """

    parent: Entry
    record: EditsRecord
    in_force: "EditSet"
    fresh: tuple[Fact, ...]
    already: tuple[str, ...]
    refused: tuple[RefusedFact, ...]
    spec: EditSpec
    gate: EditGate | None
    first_specs: Mapping[str, EditSpec]

    @property
    def unreplaced(self) -> list[str]:
        """Ids of the facts in force that are said, and that no new fact replaces."""
        filled, said = {slot for fact in self.fresh for slot in fact.slots}, set(self.record.said)
        return [w.id for w in self.in_force.live if w.id in said and not w.fact.slots & filled]


def make_request(
    session: Session, place: Place, parent: Entry, facts: Sequence[Fact], spec: EditSpec | None, gate: EditGate | None
) -> EditRequest:
    """Return the edit of some facts on an entry.

    Args:
        session: Of the workspace.
        place: The entry's place.
        parent: The entry.
        facts: What is to be written.
        spec: Settings; those of the facts in force, where there are some, else the defaults.
        gate: What a fact must show.

    Raises:
        BadInput: The method leaves no edit set.
        BadSpec: The model has no such layers.
    """
    from perdure.editing.prompts import texts_of, too_long

    record, in_force = record_at(session.ledger, parent), place.in_force(parent)
    spec = spec or usual_spec(session, in_force)
    if spec.method not in SOLVED:
        raise BadInput(f"method {spec.method} leaves no edit set; choose one of {', '.join(SOLVED)}")
    refuse_layers(session, spec)
    live = {w.id for w in in_force.live}
    new, why = [fact for fact in facts if fact.id not in live], {}
    if new:  # else no model is needed
        positions, tokenizer = session.runtime.base.positions, session.tokenizer
        why = {f.id: long for f in new if (long := too_long(tokenizer, texts_of(f), positions, CONTEXTS))}
    return EditRequest(
        parent,
        record,
        in_force,
        fresh=tuple(fact for fact in new if fact.id not in why),
        already=tuple(fact.id for fact in facts if fact.id in live),
        refused=tuple(refused(fact, why[fact.id]) for fact in new if fact.id in why),
        spec=spec,
        gate=gate,
        first_specs=first_specs(session.ledger, record),
    )


def refused(fact: Fact, reason: str) -> RefusedFact:
    """Return a fact with the reason why it is not written."""
    return RefusedFact(fact.subject, fact.id, reason)


def facts_of(given: Facts) -> list[Fact]:
    """Return facts from a file, from their JSON, or as they are.

    Raises:
        BadInput: There is none, or one is not valid.
    """
    if isinstance(given, str | PathLike):
        facts = read_facts(Path(given))
    else:
        several = list(given) if isinstance(given, Iterable) and not isinstance(given, Mapping) else [given]
        facts = [Fact.from_json(fact.to_json() if isinstance(fact, Fact) else fact) for fact in several]
    if not facts:
        raise BadInput("there is no fact to edit; give one at least")
    return facts


def usual_spec(session: Session, edit_set: "EditSet | None" = None) -> EditSpec:
    """Return the settings of the facts in force at head, which one joint solve shares, else the defaults."""
    head = session.ledger.resolve("head")
    in_force = edit_set or Place.at(session, head).in_force(head)
    if not in_force.live:
        return EditSpec(seed=session.seed)
    first = in_force.live[0].spec
    return EditSpec(seed=session.seed, method=first.method, gain=first.gain, ridge=first.ridge, energy=first.energy)


def refuse_layers(session: Session, spec: EditSpec) -> None:
    """Refuse layers that the model does not have, before it is loaded.

    Raises:
        BadSpec: One is beyond it, or a method that writes into one layer got several.
    """
    from perdure.bridges.sizes import shape_of

    layers = shape_of(session.base_folder).layers
    if spec.layers and layers is not None:
        spec.at(layers)
