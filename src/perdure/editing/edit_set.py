"""The edit set: every fact in force with the vectors it was written with, and the update solved from all of them at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from perdure.core.errors import BadInput, NotFound
from perdure.editing import solve
from perdure.editing.batches import batch_name
from perdure.editing.facts import Fact
from perdure.editing.solve import Factors
from perdure.editing.spec import SPREAD, EditSpec
from perdure.editing.written import Written, alike, cosines, with_key_of
from perdure.maths.low_rank import Patch, Patches

MEMORY = ("method", "gain", "ridge", "energy")  # settings that all facts of one set share: they define its joint solve


@dataclass(frozen=True)
class EditSet:
    """Facts written into one model state; immutable, every change returns a new set.

    The update is a function of the facts in their order and nothing else. So a set from which a fact was removed with
    `resolve` is, once the facts that were optimised in one batch with it are optimised again (see `stale`), equal to the
    bit to the set in which the fact never was.

    Args:
        modules: Name of the down-projection by layer.
        state: Hash of the model state that the vectors were read from.
        written: The facts, oldest first, the dropped ones among them.
    """

    modules: Mapping[int, str] = field(default_factory=dict)
    state: str = ""
    written: tuple[Written, ...] = ()

    @property
    def live(self) -> tuple[Written, ...]:
        """The facts in force."""
        return tuple(w for w in self.written if not w.dropped)

    @property
    def dropped(self) -> tuple[Written, ...]:
        """The facts that were dropped, whose keys stay pinned to an update of zero."""
        return tuple(w for w in self.written if w.dropped)

    def find(self, fact_id: str) -> Written:
        """Return the fact with this id, or with the only id that begins with it.

        Raises:
            NotFound: No fact has such an id, or several have.
        """
        matches = [w for w in self.written if w.id.startswith(fact_id)]
        if len(matches) != 1:
            raise NotFound(
                f"{len(matches) or 'no'} facts have an id that begins with {fact_id!r}; 'perdure edits list' shows them"
            )
        return matches[0]

    def check(self, facts: Sequence[Fact], spec: EditSpec) -> None:
        """Refuse facts that cannot be added, before anything is computed for them.

        Raises:
            BadInput: A fact is in force already, or the set was written by another method, gain, ridge or energy.
        """
        in_force = {w.id for w in self.live}
        for fact in facts:
            if fact.id in in_force:
                raise BadInput(f"{fact.subject!r}: {fact.question!r} -> {fact.target!r} is in force already")
        for name in MEMORY if self.written else ():
            if (old := getattr(self.written[0].spec, name)) != (new := getattr(spec, name)):
                raise BadInput(
                    f"the facts in force were written with {name} {old}, these with {new}; one joint solve needs the same. "
                    "Use the old setting, or revert the old facts first"
                )

    def add(self, new: Sequence[Written]) -> "EditSet":
        """Return the set with more facts; facts that they supersede are removed as if never made.

        Dropped facts are removed too where a new fact has their key, whatever their subject.

        Raises:
            BadInput: See `check`.
        """
        for spec in dict.fromkeys(w.spec for w in new):
            self.check([w.fact for w in new if w.spec == spec], spec)
        remaining: dict[str, Written] = {w.id: w for w in self.written}
        filled: dict[tuple[str, ...], set[str]] = {}  # ids by slot
        for w in self.written:
            for slot in w.fact.slots:
                filled.setdefault(slot, set()).add(w.id)
        for fresh in new:
            freed = with_key_of(fresh, self.dropped)  # a key cannot be written and free of any update at once
            for gone in {fresh.id, *freed}.union(*map(filled.pop, fresh.fact.slots & filled.keys())):
                remaining.pop(gone, None)
            remaining[fresh.id] = replace(fresh, dropped=False)
            for slot in fresh.fact.slots:
                filled.setdefault(slot, set()).add(fresh.id)
        return replace(self, written=tuple(remaining.values()))

    def drop(self, *fact_ids: str) -> "EditSet":
        """Return the set without some facts: the update is zero at their keys, exactly, and other facts are not disturbed.

        Under emmet the others stay exact. With the last live fact the whole set becomes empty, pinned keys included.

        Raises:
            BadInput: One was dropped before, or shares its key with a fact that stays.
        """
        leaving = [self.find(fact_id) for fact_id in fact_ids]
        for gone in leaving:
            if gone.dropped:
                raise BadInput(f"{gone.fact.subject!r}: {gone.fact.question!r} was dropped before")
            if any(w.id in gone.shared for w in self.live if w not in leaving):
                raise BadInput(
                    f"{gone.fact.subject!r}: {gone.fact.question!r} shares its key with another fact about the same subject, so "
                    "no update can be zero for one and not for the other; remove it with --resolve"
                )
        ids = {w.id for w in leaving}
        rest = tuple(replace(w, dropped=True, shared=()) if w.id in ids else w for w in self.written)
        return replace(self, written=rest if any(not w.dropped for w in rest) else ())

    def resolve(self, *fact_ids: str) -> "EditSet":
        """Return the set as if some facts, in force or dropped, had never been made.

        The model is needed to finish where other facts were optimised in one batch with them (see `stale`), shared their key
        (see `unsettled`), or are spread over layers.
        """
        gone = {self.find(fact_id).id for fact_id in fact_ids}
        requests = {w.request: _without(w.request, gone) for w in self.written}
        rest = tuple(replace(w, request=requests[w.request]) for w in self.written if w.id not in gone)
        return replace(self, written=rest if any(not w.dropped for w in rest) else ())

    def stale(self) -> list[Written]:
        """Return the facts whose vectors are out of date: their batch has changed, or no other fact shares their key now."""
        alone = {group[0].id for group in self.unsettled() if len(group) == 1}
        return [w for w in self.written if w.id in alone or w.batch != batch_name(w.companions)]

    @property
    def unfinished(self) -> bool:
        """Whether the model has to run before the set is what it would be without the removed facts."""
        spread = bool(self.live) and self.live[0].spec.method in SPREAD
        return spread or bool(self.unsettled()) or bool(self.stale())

    def factors(self) -> dict[str, Factors]:
        """Return the update by module: one row and column for each live fact written there, in float64.

        Raises:
            BadInput: The keys of two facts are too alike.
        """
        layers = sorted({layer for w in self.live for layer in w.layers})
        return {self.modules[layer]: self.factors_at(layer) for layer in layers}

    def factors_at(self, layer: int) -> Factors:
        """Return the update of one layer that live facts are written into."""
        pinned = {w.id for w in self.pins(layer)}
        return _solve_layer([w for w in self.written if layer in w.layers and (not w.dropped or w.id in pinned)], layer)

    def pins(self, layer: int) -> list[Written]:
        """Return the dropped facts of a layer to pin: with their keys pinned, the update is zero at all dropped keys.

        Facts that shared a key and left together have one pin.
        """
        mine = [w for w in self.dropped if layer in w.layers]
        if len(mine) < 2:
            return mine
        keys, reaches = (
            torch.stack([getattr(w, name)[w.layers.index(layer)] for w in mine], 1) for name in ("keys", "reaches")
        )
        return [mine[n] for n in solve.independent(keys, reaches)]

    def patches(self) -> Patches:
        """Return the update as float32 patches of one adapter, balanced; at the keys of dropped facts it stays zero.

        Raises:
            BadInput: See `factors`.
        """
        made = {}
        for layer in sorted({layer for w in self.live for layer in w.layers}):
            pinned = [w.keys[w.layers.index(layer)] for w in self.pins(layer)]
            even = solve.balanced(self.factors_at(layer))
            keys = torch.stack(pinned, 1) if pinned else torch.empty(even.left.shape[1], 0)
            made[self.modules[layer]] = Patch(*solve.rounded(even, keys), 1.0)
        return made

    def overlap(self, new: Sequence[Written]) -> list[tuple[str, str, float]]:
        """Return (new fact, nearest fact in the set and layer, cosine of their keys in the metric) for each new fact."""
        near = []
        for fresh in new:
            others = [w for w in self.written if w.layers == fresh.layers and w.id != fresh.id]
            if others:
                cosine, at = cosines([fresh], others)[0].max(0)
                near.append((fresh.id, others[int(at)].id, cosine.item()))
        return near

    def unsettled(self) -> list[tuple[Written, ...]]:
        """Return the live facts, by key, whose change was not optimised for exactly the facts that have this key now."""
        groups = []
        for layers in sorted({w.layers for w in self.live}):
            for group in alike([w for w in self.live if w.layers == layers]):
                wanted = tuple(sorted(w.id for w in group)) if len(group) > 1 else ()
                if any(w.shared != wanted for w in group):
                    groups.append(tuple(group))
        return groups


def _solve_layer(written: Sequence[Written], layer: int) -> Factors:
    """Return the factors of one layer: live facts with their residuals, dropped ones with a residual of zero and no column.

    Facts that share a key have one column together.
    """
    spec = written[0].spec
    units: dict[tuple[str, ...], list[Written]] = {}
    for w in written:
        units.setdefault(w.shared or (w.id,), []).append(w)

    def stacked(name: str) -> Tensor:
        rows = [[getattr(w, name)[w.layers.index(layer)].double() for w in unit] for unit in units.values()]
        return torch.stack([torch.stack(unit).mean(0) for unit in rows], 1)

    keys, reaches, residuals = stacked("keys"), stacked("reaches"), stacked("residuals")
    live = torch.tensor([not unit[0].dropped for unit in units.values()])
    whole = solve.solved(spec.method, keys, reaches, residuals * live, spec.gain)
    live_factors = Factors(whole.left[live], whole.right[:, live])
    return solve.vanishing(live_factors, keys[:, ~live], reaches[:, ~live])


def _without(request: tuple[Fact, ...], gone: set[str]) -> tuple[Fact, ...]:
    """Return a request's facts without the removed ones; empty where fewer than two are left."""
    left = tuple(fact for fact in request if fact.id not in gone)
    return left if len(left) > 1 else ()
