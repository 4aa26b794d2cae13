"""The trials of a search: write facts, verify them, and leave out what undoes an earlier fact or changes too much."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput
from perdure.editing.facts import Fact
from perdure.editing.spec import SPREAD, EditSpec
from perdure.ledger.records import Drift
from perdure.workflows.edit.again import Verdicts, tries
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.outcome import Draft, Outcome
from perdure.workflows.edit.request import EditRequest
from perdure.workflows.edit.rewrite import Base
from perdure.workflows.edit.state import Place
from perdure.workflows.edit.write import written

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet, Written

OVER = EditGate(paraphrase=0.0, neighbours=1.0, perplexity=float("inf"))  # requires only that a fact is said


@dataclass(frozen=True)
class Trials:
    """What every trial is measured against.

    Args:
        place: The workspace's model.
        request: The facts, settings and gate.
        base: The facts in force, written again where that was needed.
        before: How the new facts are answered without them.
        depth: Number of the model's blocks.
        width: Numbers in a key.
    """

    place: Place
    request: EditRequest
    base: Base
    before: Verdicts
    depth: int
    width: int

    @property
    def full(self) -> set[str]:
        """The facts that are verified in every form: the new ones, and those in force that were written again."""
        again = [w.id for w in self.base.edit_set.live] if self.base.rewritten else []
        return {*again, *(fact.id for fact in self.request.fresh)}

    def attempts(self) -> Iterator[EditSpec]:
        """Yield the settings, and what to try after them where there is a gate."""
        yield self.request.spec
        if self.request.gate is not None:
            yield from tries(self.request.spec, self.depth)

    def attempt(self, draft: Draft, facts: Sequence[Fact], spec: EditSpec) -> Draft:
        """Write facts beside those of a draft; return it with those that pass, and why the others do not."""
        self._refuse_crowd(draft.edit_set, facts, spec)
        self.place.load()
        trial, why = written(self.place, facts, spec, draft.edit_set)
        mine = {fact.id for fact in facts}
        trial, alike = self._solvable(draft.edit_set, trial, [w for w in trial.written if w.id in mine])
        verdicts = self.place.verify(trial, full=self.full)
        why = {**why, **alike}
        gate = self.request.gate
        for fact in facts:
            if fact.id not in why and gate and (problem := gate.problem(verdicts[fact.id], self.before[fact.id])):
                why[fact.id] = problem + self._advice(fact)
        if not why:
            return Draft(trial, {}, verdicts)
        return Draft(self._with(draft.edit_set, trial, [w for w in trial.written if w.id in mine - why.keys()]), why)

    def settle(self, draft: Draft) -> Outcome:
        """Return the draft without new facts that others of it undo, that break an earlier one, or that change too much."""
        while new := self._new(draft):
            verdicts = draft.verdicts or self.place.verify(draft.edit_set, full=self.full)
            why = self._undone(draft, verdicts)
            if not why:
                drift, norms = self.place.cost(draft.edit_set, self.request.parent)
                far = self.request.gate.too_far(drift) if self.request.gate else None
                if not far:
                    self.place.load(draft.edit_set)
                    return self._outcome(draft, verdicts, drift, norms)
                why = self._over(draft, far)
            kept = [w for w in draft.edit_set.written if w.id in new - why.keys()]
            draft = Draft(self._with(self.base.edit_set, draft.edit_set, kept), {**draft.why, **why})
        return Outcome(draft.edit_set, why=draft.why)

    def _outcome(self, draft: Draft, verdicts: Verdicts, drift: Drift, norms: Mapping[str, float]) -> Outcome:
        applied = tuple(fact for fact in self.request.fresh if fact.id not in draft.why)
        return Outcome(
            draft.edit_set, applied, draft.why, verdicts, self.before, self.full, drift, norms, self.base.rewritten
        )

    def _advice(self, fact: Fact) -> str:
        """Return what to do about a fact that does not pass because its prompt leaves little to write on."""
        from perdure.editing.prompts import opens

        alone = opens(self.place.session.tokenizer, fact)
        return "; a model reads little from a first token: put a word before it" if alone else ""

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
        if self.request.spec.method in SPREAD or len(keys) < self.width:
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

    def _over(self, draft: Draft, far: str) -> dict[str, str]:
        """Return which new facts must go, and why, where all of them change too much: the last as they were given.

        The first ones that together do not change too much stay. Their number is searched by halves, so that the effect on
        held-out text is measured about log2(facts) times.
        """
        gate, new, order = self.request.gate, self._new(draft), [fact.id for fact in self.request.fresh]
        kept = sorted((w for w in draft.edit_set.written if w.id in new), key=lambda w: order.index(w.id))
        fit, over = 0, len(kept)
        while gate and over - fit > 1:
            half = (fit + over) // 2
            drift, _ = self.place.cost(self._with(self.base.edit_set, draft.edit_set, kept[:half]), self.request.parent)
            fit, over = (fit, half) if gate.too_far(drift) else (half, over)
        return dict.fromkeys((w.id for w in kept[fit:]), far + self._remedy(fit))

    def _remedy(self, fit: int) -> str:
        """Return what to do where all facts together change too much, and only the first `fit` do not."""
        many = len(self.request.fresh) > 1
        alone = self.request.spec.method not in SPREAD and not self.request.in_force.written
        some = f"; of the facts that pass, the first {fit} do not" if fit else ""
        choices = ["write fewer"] if many and not fit else []
        choices += ["take --method memit, which changes less for many facts"] if many and alone else []
        return f"{some}; " + ", or ".join([*choices, "allow more with --perplexity"])

    def _undone(self, draft: Draft, verdicts: Verdicts) -> dict[str, str]:
        """Return which new facts must go, and why, from how all live facts are answered."""
        gate = self.request.gate
        if gate is None:
            return {}
        new = self._new(draft)
        why = {n: p for n in new if (p := gate.problem(verdicts[n], self.before[n]))}
        earlier = set(self.request.record.said) - new
        broken = [w for w in draft.edit_set.live if w.id in earlier and OVER.problem(verdicts[w.id])]
        near = draft.edit_set.overlap([w for w in draft.edit_set.live if w.id in new])
        for gone in broken:
            worst = max(near, key=lambda pair: (pair[1] == gone.id, pair[2]), default=None)
            name = worst[0] if worst else min(new)
            why.setdefault(
                name, f"with it an earlier fact is no longer said: {gone.fact.question!r} {gone.fact.target!r}"
            )
        return why

    def _new(self, draft: Draft) -> set[str]:
        return {fact.id for fact in self.request.fresh if fact.id not in draft.why}
