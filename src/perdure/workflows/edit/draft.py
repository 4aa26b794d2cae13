"""The facts that pass: written, asked, tried again, and taken out where they undo an earlier one or change too much."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput, Diverged
from perdure.editing.facts import Fact
from perdure.editing.spec import SPREAD, EditSpec
from perdure.ledger import Entry
from perdure.workflows.edit.again import lost, strengthened, tries
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.state import Place
from perdure.workflows.edit.write import diverging, written

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet, Written
    from perdure.editing.measures import Verdict

OVER = EditGate(paraphrase=0.0, neighbours=1.0, perplexity=float("inf"))  # asks only whether a fact is said
NAMED = 5  # facts that a reason names
REVERT = "'perdure revert FACT' takes one out"


@dataclass
class Draft:
    """A set of facts, and why others are not in it.

    Args:
        edit_set: The set.
        why: The reason by fact id.
    """

    edit_set: "EditSet"
    why: dict[str, str] = field(default_factory=dict)


class Drafting:
    """Facts written beside those in force, until all that are left pass.

    Args:
        place: The workspace's model.
        entry: Where the facts are written on.
        fresh: The facts.
        held: The set in force at the entry.
        said: Ids of its facts that are said.
        asked_for: Settings that its facts were asked for with, by id.
        spec: Settings.
        gate: What a fact must show; None lets whatever comes pass.
    """

    def __init__(
        self,
        place: Place,
        entry: Entry,
        fresh: Sequence[Fact],
        held: "EditSet",
        said: Collection[str],
        asked_for: Mapping[str, EditSpec],
        spec: EditSpec,
        gate: EditGate | None,
    ):
        self.place, self.entry, self.fresh, self.held = place, entry, fresh, held
        self.said, self.asked_for, self.spec, self.gate = set(said), asked_for, spec, gate
        self.rewritten = 0
        self.verdicts: dict[str, Verdict] = {}
        self.asked: EditSet | None = None

    def run(self) -> Draft:
        """Return the set with the facts that pass, laid; `verdicts`, `before`, `drift` and `norms` tell of it."""
        if reason := self._written_again():
            return Draft(self.held, dict.fromkeys((fact.id for fact in self.fresh), reason))
        draft, left = Draft(self.base), self.fresh
        self.before = self._before(self.base)
        for spec in self._attempts():
            if left:
                try:
                    draft = self._tried(draft, left, spec)
                except BadInput:  # a retry that cannot be made leaves every fact its reason
                    if spec is self.spec:
                        raise
                left = [fact for fact in left if fact.id in draft.why]
        return self._settled(draft)

    def _written_again(self) -> str | None:
        """Write the facts in force again where head learned since; return why nothing can be written beside them, if so."""
        self.base = self.held
        self.place.load()
        try:
            self.base = self.place.current(self.held)
            if self.base is self.held:
                return None
            found = self.place.ask(self.base)
        except (BadInput, Diverged) as error:  # two keys that could be told apart before are all but the same there
            named = _listed(self._culprits(self.base, error))
            return f"the facts in force cannot be written again on the new head: {error} ({named}); {REVERT}"
        self.rewritten, wanted = len(self.base.live), self._unreplaced()
        self.base, now = strengthened(self.place, self.base, found, wanted, self.asked_for)
        self.place.load()
        gone = lost(now, wanted) if self.gate else []
        return _undoing([self.base.find(fact_id).fact for fact_id in gone]) if gone else None

    def _culprits(self, edit_set: "EditSet", error: Exception) -> list[Fact]:
        """Return the facts that diverge where they are written again, or those whose keys are most alike."""
        if isinstance(error, Diverged):
            self.place.load()
            specs = {w.spec: [other.fact for other in edit_set.live if other.spec == w.spec] for w in edit_set.live}
            bad = {fact_id for spec, facts in specs.items() for fact_id in diverging(self.place, facts, spec)}
        else:
            bad = set(max(edit_set.overlap(edit_set.live), key=lambda pair: pair[2], default=())[:2])
        return [w.fact for w in edit_set.live if w.id in bad] or [w.fact for w in edit_set.live]

    def full(self) -> set[str]:
        """Return the facts that are verified in every form: the new ones, and those in force that were written again."""
        again = [w.id for w in self.base.live] if self.rewritten else []
        return {*again, *(fact.id for fact in self.fresh)}

    def _unreplaced(self) -> list[str]:
        """Return the facts in force that are said, and whose place no new fact is to take."""
        filled = {slot for fact in self.fresh for slot in fact.slots}
        return [w.id for w in self.held.live if w.id in self.said and not w.fact.slots & filled]

    def _advice(self, fact: Fact) -> str:
        """Return what to do about a fact that does not pass because its prompt leaves little to write on."""
        from perdure.editing.prompts import opens

        alone = opens(self.place.session.tokenizer, fact)
        return "; a model reads little from a first token: put a word before it" if alone else ""

    def _before(self, held: "EditSet") -> dict[str, "Verdict"]:
        """Return how the new facts are answered without them."""
        from perdure.editing.overlay import overlaid
        from perdure.editing.verification import verify

        with self.place.site() as site, overlaid(site, held.factors()):
            self.depth, self.width = site.layout.depth, site.layout.inner
            return {f.id: v for f, v in zip(self.fresh, verify(site, self.fresh, generation=False), strict=True)}

    def _attempts(self) -> Iterator[EditSpec]:
        """Yield the settings, and what to try after them where there is a gate."""
        yield self.spec
        if self.gate is not None:
            yield from tries(self.spec, self.depth)

    def _tried(self, draft: Draft, facts: Sequence[Fact], spec: EditSpec) -> Draft:
        """Write facts beside those of a draft; return it with those that pass, and why the others do not."""
        base = draft.edit_set
        self._refuse_crowd(base, facts, spec)
        self.place.load()
        trial, why = written(self.place, facts, spec, base)
        mine = {fact.id for fact in facts}
        trial, alike = self._solvable(base, trial, [w for w in trial.written if w.id in mine])
        why |= alike
        self._ask(trial)
        for fact in facts:
            if (
                fact.id not in why
                and self.gate
                and (problem := self.gate.problem(self.verdicts[fact.id], self.before[fact.id]))
            ):
                why[fact.id] = problem + self._advice(fact)
        passed = [w for w in trial.written if w.id in mine and w.id not in why]
        return Draft(self._with(base, trial, passed) if why else trial, why)

    def _solvable(
        self, base: "EditSet", trial: "EditSet", new: Sequence["Written"]
    ) -> tuple["EditSet", dict[str, str]]:
        """Return the trial without the new facts whose keys are too like another's to be told apart, and why."""
        why: dict[str, str] = {}
        for layer in {layer for w in trial.live for layer in w.layers}:
            self._refuse_over({w.shared or (w.id,) for w in trial.written if layer in w.layers})
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

    def _refuse_crowd(self, base: "EditSet", facts: Sequence[Fact], spec: EditSpec) -> None:
        """Refuse, before hours are spent on them, more facts than one layer can take: those that open alike share a key.

        Raises:
            BadInput: With the number that fits.
        """
        layers, filled = spec.at(self.depth), {slot for fact in facts for slot in fact.slots}
        held = [w.fact for w in base.live if w.layers == layers and not w.fact.slots & filled]
        self._refuse_over({fact.question[: fact.at + len(fact.subject)] for fact in (*held, *facts)})

    def _refuse_over(self, keys: Collection[object]) -> None:
        """Refuse more keys in one layer than a method can meet exactly, which no choice among them would help."""
        if self.spec.method in SPREAD or len(keys) < self.width:
            return
        raise BadInput(
            f"{len(keys)} facts with different keys cannot be met exactly by one layer whose keys have {self.width} numbers; "
            "write fewer, or revert these and write all with --method memit, which gives in a little"
        )

    def _with(self, base: "EditSet", trial: "EditSet", new: Sequence["Written"]) -> "EditSet":
        """Return a set with some of the facts that a trial wrote."""
        if not new:
            return base
        return self.place.settle(replace(base, modules=trial.modules, state=trial.state).add(new))

    def _settled(self, draft: Draft) -> Draft:
        """Return the draft without new facts that others of it undo, that break an earlier one, or that change too much."""
        while any(fact.id not in draft.why for fact in self.fresh):
            self._ask(draft.edit_set)
            why = self._undone(draft)
            if not why:
                self.drift, self.norms = self.place.cost(draft.edit_set, self.entry)
                far = self.gate.too_far(self.drift) if self.gate else None
                why = {fact.id: far + self._remedy() for fact in self.fresh if far and fact.id not in draft.why}
                if not why:
                    self.place.load(draft.edit_set)
                    break
            kept = [w for w in draft.edit_set.written if w.id in self._new(draft) - set(why)]
            draft = Draft(self._with(self.base, draft.edit_set, kept), {**draft.why, **why})
        return draft

    def _remedy(self) -> str:
        """Return what to do where all facts together change too much."""
        many, alone = len(self.fresh) > 1, self.spec.method not in SPREAD and not self.held.written
        choices = ["write fewer"] if many else []
        choices += ["take --method memit, which changes less for many facts"] if many and alone else []
        return "; " + ", or ".join([*choices, "allow more with --perplexity"])

    def _undone(self, draft: Draft) -> dict[str, str]:
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

    def _new(self, draft: Draft) -> set[str]:
        return {fact.id for fact in self.fresh if fact.id not in draft.why}

    def _ask(self, edit_set: "EditSet") -> None:
        """Verify all live facts of a set, the new ones in every form, unless that was the last one asked."""
        if self.asked is not edit_set:
            self.verdicts, self.asked = self.place.ask(edit_set, full=self.full()), edit_set


def _undoing(gone: Sequence[Fact]) -> str:
    """Say which facts that are said now would not be, so that no new one is written beside them."""
    return (
        f"head learned since the facts in force were written, and with all written again it no longer says {_listed(gone)}; "
        f"{REVERT}, --no-gate records what comes"
    )


def _listed(facts: Sequence[Fact]) -> str:
    """Return what facts say, the first of many."""
    more = [f"{len(facts) - NAMED} more"] if len(facts) > NAMED else []
    return ", ".join([*(f"{fact.question!r} {fact.target!r}" for fact in facts[:NAMED]), *more])
