"""Edit: from facts to a new entry that says them, to one with those that passed, or to nothing at all."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput
from perdure.edits.facts import Fact, read_facts, refuse_repeats, superseded
from perdure.edits.spec import SPREAD, EditSpec
from perdure.ledger import Entry, writing
from perdure.workflows.edit_again import lost, strengthened, tries
from perdure.workflows.edit_gate import EditGate
from perdure.workflows.edit_records import NOTE, named, note_of, noted, record_at
from perdure.workflows.edit_state import SLOT, Place, Tick, pruned, refuse_busy

if TYPE_CHECKING:
    from perdure.edits.edit_set import EditSet, Written
    from perdure.edits.measures import Verdict
    from perdure.workflows.workspace import Workspace

SOLVED = ("emmet", "rome", "memit", "alphaedit")  # methods whose facts can be taken out again
OVER = EditGate(paraphrase=0.0, neighbours=1.0, perplexity=float("inf"))  # asks only whether a fact is said
CONTEXTS = 0.25  # share of a model's positions that is left to the contexts around a fact's texts
Facts = str | PathLike[str] | Fact | Mapping[str, Any] | Iterable[Fact | Mapping[str, Any]]


def edit(
    ws: "Workspace",
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
        ws: The workspace.
        facts: A file of facts, one fact, or several; a fact may be its JSON object.
        spec: Settings; those of the facts in force, where there are some, else the defaults.
        gate: What a fact must show; None records whatever comes.
        tick: Called with (what, done, total) as work goes on.

    Returns:
        "entry" (None if no fact passed), "applied" (fact ids), "refused" ({"subject", "fact", "reason"} each), "superseded"
        ({"subject", "fact", "by"} each), "facts" (those applied, as verified), "drift", "rewritten" (facts in force that had to
        be written again because head learned since), "lost" (ids of facts in force that were said before and are not now),
        "known" (ids of those applied that were said without the edit) and "seconds".

    Raises:
        Busy: Another process writes to the workspace.
        BadInput: Facts that cannot be used, a model that cannot be edited, or a candidate is waiting.
    """
    asked = facts_of(facts)
    refuse_repeats(asked)
    with writing(ws.ledger.root):
        refuse_busy(ws)
        return _Edit(ws, asked, spec, gate, tick).run()


def facts_of(given: Facts) -> list[Fact]:
    """Return facts from a file, from their JSON, or as they are.

    Raises:
        BadInput: There is none, or one is not valid.
    """
    if isinstance(given, str | PathLike):
        found = read_facts(Path(given))
    else:
        several = [given] if isinstance(given, Fact | Mapping) else list(given)
        found = [Fact.from_json(fact.to_json() if isinstance(fact, Fact) else fact) for fact in several]
    if not found:
        raise BadInput("there is no fact to edit; give one at least")
    return found


@dataclass
class _Draft:
    """The set so far, and why facts are not in it."""

    edit_set: "EditSet"
    why: dict[str, str] = field(default_factory=dict)


class _Edit:
    """The steps of one edit, in the order `run` names them."""

    def __init__(
        self, ws: "Workspace", facts: Sequence[Fact], spec: EditSpec | None, gate: EditGate | None, tick: Tick | None
    ):
        self.ws, self.ledger, self.gate = ws, ws.ledger, gate
        self.parent = ws.ledger.resolve("head")
        self.place = Place.at(ws, self.parent, tick)
        self.record = record_at(ws.ledger, self.parent)
        self.held = self.place.in_force(self.parent)
        self.seed = ws.ledger.config.get("seed", 0)
        self.spec = spec or usual_spec(ws, self.held)
        if self.spec.method not in SOLVED:
            raise BadInput(f"method {self.spec.method} leaves no edit set; choose one of {', '.join(SOLVED)}")
        live = {w.id for w in self.held.live}
        why = {fact.id: "it is in force already; 'perdure edits list' shows it" for fact in facts if fact.id in live}
        why |= {fact.id: long for fact in facts if (long := self._too_long(fact))}
        self.fresh = [fact for fact in facts if fact.id not in why]
        self.refused = [_refusal(fact, why[fact.id]) for fact in facts if fact.id in why]
        self.rewritten = 0
        self.said = {line["fact"] for line in self.record["facts"] if line["efficacy"]}
        self.verdicts: dict[str, Verdict] = {}
        self.asked: EditSet | None = None

    def run(self) -> dict[str, Any]:
        began = time.perf_counter()
        draft = self._made() if self.fresh else _Draft(self.held)
        applied = [fact for fact in self.fresh if fact.id not in draft.why]
        self.refused += [_refusal(fact, draft.why[fact.id]) for fact in self.fresh if fact.id in draft.why]
        told: dict[str, Any] = {"entry": None, "applied": [], "refused": self.refused, "superseded": [], "facts": []}
        told |= {"drift": None, "rewritten": 0, "lost": [], "known": []}
        if not applied:
            self.ws.runtime.laid = None
            return {**told, "seconds": round(time.perf_counter() - began, 3)}
        made = pruned(draft.edit_set)
        entry = self._entry(made, applied)
        title, owners = named([f.subject for f in applied]), dict.fromkeys([fact.id for fact in applied], entry.id)
        note = noted(title, made, self.verdicts, self.record, self.drift, self.norms, owners, self._full())
        mine = {fact.id for fact in applied}
        told |= {
            "entry": entry.id,
            "applied": [fact.id for fact in applied],
            "superseded": self._superseded(made, applied),
            "facts": [line for line in note["facts"] if line["fact"] in mine],
            "drift": self.drift,
            "rewritten": self.rewritten,
            "lost": self._lost(),
            "known": [fact.id for fact in applied if self.before[fact.id].prompt.said],
            "seconds": round(time.perf_counter() - began, 3),
        }
        beside = {
            key: told[key] for key in ("applied", "refused", "superseded", "rewritten", "lost", "known", "seconds")
        }
        self.ledger.record(
            entry, {NOTE: note_of(self.ledger, self.parent, note), "edit": beside}, why=f"edit {note['about']}"
        )
        self.ws.runtime.laid = self.ledger.state(entry)
        return told

    def _made(self) -> _Draft:
        """Return the set with the facts that pass."""
        self.place.lay()
        self.base = self.place.current(self.held)
        if self.base is not self.held:
            self.rewritten = len(self.base.live)
            self.base, found = strengthened(self.place, self.base, self.place.ask(self.base), sorted(self.said))
            self.said -= set(lost(found, sorted(self.said)))  # no new fact is to blame for those
            self.place.lay()
        draft, left = _Draft(self.base), self.fresh
        self.before = self._before(self.base)
        for spec in self._attempts():
            if left:
                draft = self._tried(draft, left, spec)
                left = [fact for fact in left if fact.id in draft.why]
        return self._settled(draft)

    def _too_long(self, fact: Fact) -> str | None:
        """Return why a fact's texts do not fit the model beside the contexts that they are asked in; None if they do."""
        positions = self.ws.runtime.base.positions
        texts = [
            f"{fact.question} {fact.target}",
            *fact.paraphrases,
            *(f"{n.prompt} {n.answer}" for n in fact.neighbours),
        ]
        longest = max(len(self.ws.tokenizer(text)["input_ids"]) for text in texts)
        if positions is None or longest <= positions * (1 - CONTEXTS):
            return None
        return (
            f"its longest text has {longest} tokens; the model has {positions} positions, and a quarter is for contexts"
        )

    def _before(self, held: "EditSet") -> dict[str, "Verdict"]:
        """Return how the new facts are answered without them."""
        from perdure.bridges.editing_laid import laid
        from perdure.bridges.editing_verify import verify

        with self.place.site() as site, laid(site, held.factors()):
            self.depth = site.layout.depth
            return {f.id: v for f, v in zip(self.fresh, verify(site, self.fresh, generation=False), strict=True)}

    def _attempts(self) -> Iterator[EditSpec]:
        """Yield the settings, and what to try after them where there is a gate."""
        yield self.spec
        if self.gate is not None:
            yield from tries(self.spec, self.depth)

    def _tried(self, draft: _Draft, facts: Sequence[Fact], spec: EditSpec) -> _Draft:
        """Write facts beside those of a draft; return it with those that pass, and why the others do not."""
        base = draft.edit_set
        self.place.lay()
        trial = self.place.write(facts, spec, base)
        mine = {fact.id for fact in facts}
        trial, why = self._solvable(base, trial, [w for w in trial.written if w.id in mine])
        self._ask(trial)
        for fact in facts:
            if (
                fact.id not in why
                and self.gate
                and (problem := self.gate.problem(self.verdicts[fact.id], self.before[fact.id]))
            ):
                why[fact.id] = problem
        passed = [w for w in trial.written if w.id in mine and w.id not in why]
        return _Draft(self._with(base, trial, passed) if why else trial, why)

    def _solvable(
        self, base: "EditSet", trial: "EditSet", new: Sequence["Written"]
    ) -> tuple["EditSet", dict[str, str]]:
        """Return the trial without the new facts whose keys are too like another's to be told apart, and why."""
        why: dict[str, str] = {}
        self._refuse_crowd(trial)
        while True:
            try:
                trial.factors()
                return trial, why
            except BadInput as error:
                left = [w for w in new if w.id not in why]
                near = trial.overlap(left)
                if not near:
                    raise
                worst, other, _ = max(near, key=lambda pair: pair[2])
                fact = trial.find(other).fact
                why[worst] = f"{error}: it is too like {fact.subject!r}, {fact.question!r}; try another layer or prompt"
                trial = self._with(base, trial, [w for w in left if w.id != worst])

    def _refuse_crowd(self, trial: "EditSet") -> None:
        """Refuse more facts in one layer than a method can meet exactly, which no choice among them would help.

        Raises:
            BadInput: With the number that fits.
        """
        for w in trial.live[:1] if self.spec.method in ("emmet", "rome") else ():
            count, width = sum(other.layers == w.layers for other in trial.live), w.keys.shape[-1]
            if count >= width:
                raise BadInput(
                    f"{count} facts cannot be met exactly by one layer whose keys have {width} numbers; write fewer, or revert "
                    "these and write all with --method memit, which gives in a little"
                )

    def _with(self, base: "EditSet", trial: "EditSet", new: Sequence["Written"]) -> "EditSet":
        """Return a set with some of the facts that a trial wrote."""
        if not new:
            return base
        return self.place.settle(replace(base, modules=trial.modules, state=trial.state).add(new))

    def _settled(self, draft: _Draft) -> _Draft:
        """Return the draft without new facts that others of it undo, that break an earlier one, or that change too much."""
        while any(fact.id not in draft.why for fact in self.fresh):
            self._ask(draft.edit_set)
            why = self._undone(draft)
            if not why:
                self.drift, self.norms = self.place.cost(draft.edit_set, self.parent)
                far = self.gate.too_far(self.drift) if self.gate else None
                why = {fact.id: far + self._remedy() for fact in self.fresh if far and fact.id not in draft.why}
                if not why:
                    self.place.lay(draft.edit_set)
                    break
            kept = [w for w in draft.edit_set.written if w.id in self._new(draft) - set(why)]
            draft = _Draft(self._with(self.base, draft.edit_set, kept), {**draft.why, **why})
        return draft

    def _remedy(self) -> str:
        """Return what to do where all facts together change too much."""
        many, alone = len(self.fresh) > 1, self.spec.method not in SPREAD and not self.held.written
        choices = ["write fewer"] if many else []
        choices += ["take --method memit, which changes less for many facts"] if many and alone else []
        return "; " + ", or ".join([*choices, "allow more with --perplexity"])

    def _undone(self, draft: _Draft) -> dict[str, str]:
        """Return which new facts must go, and why, from how all live facts are answered."""
        if self.gate is None:
            return {}
        new = self._new(draft)
        why = {n: p for n in new if (p := self.gate.problem(self.verdicts[n], self.before[n]))}
        broken = [w for w in draft.edit_set.live if w.id in self.said - new and OVER.problem(self.verdicts[w.id])]
        near = draft.edit_set.overlap([w for w in draft.edit_set.live if w.id in new])
        for gone in broken:
            worst = max(near, key=lambda pair: (pair[1] == gone.id, pair[2]), default=None)
            name = worst[0] if worst else min(new)
            why.setdefault(
                name, f"with it an earlier fact is no longer said: {gone.fact.question!r} {gone.fact.target!r}"
            )
        return why

    def _new(self, draft: _Draft) -> set[str]:
        return {fact.id for fact in self.fresh if fact.id not in draft.why}

    def _ask(self, edit_set: "EditSet") -> None:
        """Verify all live facts of a set, the new ones in every form, unless that was the last one asked."""
        if self.asked is not edit_set:
            self.verdicts, self.asked = self.place.ask(edit_set, full=self._full()), edit_set

    def _full(self) -> set[str]:
        """Return the facts that are verified in every form: the new ones, and those in force that were written again."""
        again = [w.id for w in self.base.live] if self.rewritten else []
        return {*again, *(fact.id for fact in self.fresh)}

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
            slots={SLOT: self.place.keep(made)},
            memory=parent.memory,
            columns=parent.columns,
            state=parent.state,
        )

    def _lost(self) -> list[str]:
        """Return the facts in force that were said before and are not now."""
        before = [line["fact"] for line in self.record["facts"] if line["efficacy"]]
        return lost(self.verdicts, before)

    def _superseded(self, made: "EditSet", applied: Sequence[Fact]) -> list[dict[str, str]]:
        """Return the facts in force before whose place new ones took."""
        now = {w.id for w in made.live}
        gone = [w.fact for w in self.held.live if w.id not in now]
        pairs = [(old, new) for new in applied for old in superseded(new, gone)]
        return [{"subject": old.subject, "fact": old.id, "by": new.id} for old, new in pairs]


def usual_spec(ws: "Workspace", edit_set: "EditSet | None" = None) -> EditSpec:
    """Return the settings of the facts in force at head, which one joint solve shares, else the defaults."""
    seed = ws.ledger.config.get("seed", 0)
    head = ws.ledger.resolve("head")
    held = edit_set or Place.at(ws, head).in_force(head)
    if not held.live:
        return EditSpec(seed=seed)
    first = held.live[0].spec
    return EditSpec(seed=seed, method=first.method, gain=first.gain, ridge=first.ridge, energy=first.energy)


def _refusal(fact: Fact, reason: str) -> dict[str, str]:
    return {"subject": fact.subject, "fact": fact.id, "reason": reason}
