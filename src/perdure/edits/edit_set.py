"""The edit set: every fact in force with the vectors it was written by, and the update solved from all of them at once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.edits import solve
from perdure.edits.facts import Fact
from perdure.edits.solve import Factors
from perdure.edits.spec import EditSpec
from perdure.maths.low_rank import Patch, Patches, to_tensors

FORMAT = 1
EXTRA = "edits/"  # prefix of the tensors that are no factors
VECTORS = ("keys", "reaches", "residuals", "change")
ALIKE = 0.95  # cosine of two keys, in the metric, from which they are taken for one: one subject that its prompts begin with
MEMORY = ("method", "gain", "ridge", "energy")  # settings that all facts of one set share: they define its joint solve


@dataclass(frozen=True)
class Written:
    """One fact as it was written.

    Args:
        fact: The fact.
        layers: Blocks it is written into.
        keys: (layers, in) inputs of the down-projections at the subject's last token.
        reaches: (layers, in) the keys times the metric of each layer (see `solve`).
        residuals: (layers, out) what the update shall add at each key.
        change: (out,) what the optimisation asks for; where a fact is spread over layers, they share it.
        spec: Settings it was found with.
        told: Facts about the optimisation, for people: loss, steps, size.
        shared: Ids of the facts, itself among them, whose keys are so alike that one change says all; empty if it is alone.
        dropped: It is out of force, and its key is kept free of any update.
    """

    fact: Fact
    layers: tuple[int, ...]
    keys: Tensor
    reaches: Tensor
    residuals: Tensor
    change: Tensor
    spec: EditSpec
    told: Mapping[str, float] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    dropped: bool = False

    @property
    def id(self) -> str:
        """Id of the fact."""
        return self.fact.id


@dataclass(frozen=True)
class EditSet:
    """Facts written into one model state; immutable, every change returns a new set.

    The update is a function of the facts in their order and nothing else. So a set from which a fact was resolved away is,
    to the bit, the set in which it never was.

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
        """Return the fact of this id, or of the only id that begins so.

        Raises:
            NotFound: There is none, or several begin so.
        """
        found = [w for w in self.written if w.id.startswith(fact_id)]
        if len(found) != 1:
            raise NotFound(f"{len(found) or 'no'} facts are called {fact_id!r}; 'perdure edits list' shows them")
        return found[0]

    def check(self, facts: Sequence[Fact], spec: EditSpec) -> None:
        """Refuse facts that cannot be added, before anything is computed for them.

        Raises:
            BadInput: A fact is in force already, or the set was written by another method, gain, ridge or energy.
        """
        held = {w.id for w in self.live}
        for fact in facts:
            if fact.id in held:
                raise BadInput(f"{fact.subject!r}: {fact.question!r} -> {fact.target!r} is in force already")
        for name in MEMORY if self.written else ():
            if (old := getattr(self.written[0].spec, name)) != (new := getattr(spec, name)):
                raise BadInput(
                    f"the facts in force were written with {name} {old}, these with {new}; one joint solve needs the same. "
                    "Use the old setting, or revert the old facts first"
                )

    def add(self, new: Sequence[Written]) -> "EditSet":
        """Return the set with more facts; those they supersede are gone as if they had never been made.

        Raises:
            BadInput: See `check`.
        """
        for spec in dict.fromkeys(w.spec for w in new):
            self.check([w.fact for w in new if w.spec == spec], spec)
        kept: dict[str, Written] = {w.id: w for w in self.written}
        filled: dict[tuple[str, ...], set[str]] = {}  # ids by slot
        pinned: dict[str, set[str]] = {}  # ids of dropped facts by subject
        for w in self.written:
            for slot in w.fact.slots:
                filled.setdefault(slot, set()).add(w.id)
            if w.dropped:
                pinned.setdefault(w.fact.subject, set()).add(w.id)
        for fresh in new:
            # A dropped fact about the same subject has nearly this key, which could not be written and free at once.
            for gone in {fresh.id, *pinned.pop(fresh.fact.subject, ())}.union(
                *map(filled.pop, fresh.fact.slots & filled.keys())
            ):
                kept.pop(gone, None)
            kept[fresh.id] = replace(fresh, dropped=False)
            for slot in fresh.fact.slots:
                filled.setdefault(slot, set()).add(fresh.id)
        return replace(self, written=tuple(kept.values()))

    def drop(self, *fact_ids: str) -> "EditSet":
        """Return the set without some facts: the update is zero at their keys, exactly, and other facts are not disturbed.

        Under emmet the others stay exact. With the last live fact all is gone, pinned keys included.

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
                    "that no update could be zero for the one and not for the other; take it out with --resolve"
                )
        ids = {w.id for w in leaving}
        rest = tuple(replace(w, dropped=True, shared=()) if w.id in ids else w for w in self.written)
        return replace(self, written=rest if any(not w.dropped for w in rest) else ())

    def resolve(self, fact_id: str) -> "EditSet":
        """Return the set as if a fact, in force or dropped, had never been made.

        The model is needed to finish where facts are spread over layers or shared its key (see `unsettled`).
        """
        gone = self.find(fact_id)
        rest = tuple(w for w in self.written if w is not gone)
        return replace(self, written=rest if any(not w.dropped for w in rest) else ())

    def factors(self) -> dict[str, Factors]:
        """Return the update by module: one row and column for each live fact written there, in float64.

        Raises:
            BadInput: Two facts cannot be told apart by their keys.
        """
        layers = sorted({layer for w in self.live for layer in w.layers})
        return {self.modules[layer]: self.factors_at(layer) for layer in layers}

    def factors_at(self, layer: int) -> Factors:
        """Return the update of one layer that live facts are written into."""
        return _solve_layer([w for w in self.written if layer in w.layers], layer)

    def patches(self) -> Patches:
        """Return the update as float32 patches of one adapter, balanced; at the keys of dropped facts it stays zero."""
        made = {}
        for layer in sorted({layer for w in self.live for layer in w.layers}):
            pinned = [w.keys[w.layers.index(layer)] for w in self.dropped if layer in w.layers]
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
                cosine, at = _cosines([fresh], others)[0].max(0)
                near.append((fresh.id, others[int(at)].id, cosine.item()))
        return near

    def unsettled(self) -> list[tuple[Written, ...]]:
        """Return the live facts, by key, whose change was not found for exactly those that now have this key."""
        found = []
        for layers in sorted({w.layers for w in self.live}):
            for group in _alike([w for w in self.live if w.layers == layers]):
                wanted = tuple(sorted(w.id for w in group)) if len(group) > 1 else ()
                if any(w.shared != wanted for w in group):
                    found.append(tuple(group))
        return found

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the set as the named tensors of a slot: the solved adapter, and under `edits/` what it was solved from."""
        told = {
            "format": FORMAT,
            "modules": {str(layer): name for layer, name in self.modules.items()},
            "state": self.state,
            "written": [
                {
                    "fact": w.fact.to_json(),
                    "layers": list(w.layers),
                    "spec": w.spec.to_json(),
                    "told": dict(w.told),
                    "shared": list(w.shared),
                    "dropped": w.dropped,
                }
                for w in self.written
            ],
        }
        text = json.dumps(told, sort_keys=True, ensure_ascii=False).encode()
        tensors = {f"{EXTRA}facts": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
        for name in VECTORS if self.written else ():
            rows = [getattr(w, name).float().reshape(-1, getattr(w, name).shape[-1]) for w in self.written]
            tensors[EXTRA + name] = torch.cat(rows)
        return {**to_tensors(self.patches()), **tensors}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "EditSet":
        """Return the set that `to_tensors` wrote.

        Raises:
            BrokenStore: The tensors are no edit set, or of a newer format.
        """
        try:
            told = json.loads(bytes(tensors[f"{EXTRA}facts"].tolist()))
            if told["format"] > FORMAT:
                raise BrokenStore(
                    f"the edit set has format {told['format']}, this perdure knows up to {FORMAT}; upgrade perdure"
                )
            sizes = [len(w["layers"]) for w in told["written"]]
            parts: dict[str, Any] = {
                name: tensors[EXTRA + name].split([1] * len(sizes) if name == "change" else sizes)
                for name in VECTORS
                if sizes
            }
            written = [_restored(w, {name: parts[name][n] for name in VECTORS}) for n, w in enumerate(told["written"])]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BrokenStore(
                f"the slot 'edits' does not hold an edit set ({error}); restore it from a backup"
            ) from error
        return cls({int(layer): name for layer, name in told["modules"].items()}, told["state"], tuple(written))


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
    kept = Factors(whole.left[live], whole.right[:, live])
    return solve.vanishing(kept, keys[:, ~live], reaches[:, ~live])


def _alike(written: Sequence[Written]) -> list[list[Written]]:
    """Return facts of the same layers in groups of which each has its key in common, chains included, in order."""
    near = _cosines(written, written) > ALIKE
    first = list(range(len(written)))  # of each fact's group
    for i, j in near.triu(1).nonzero().tolist():
        a, b = sorted((first[i], first[j]))
        first = [a if n == b else n for n in first] if a != b else first
    groups: dict[int, list[Written]] = {}
    for n, w in zip(first, written, strict=True):
        groups.setdefault(n, []).append(w)
    return list(groups.values())


def _cosines(some: Sequence[Written], others: Sequence[Written]) -> Tensor:
    """Return the cosines of the keys in the metric, in the last layer of each (some, others)."""
    keys, reaches = torch.stack([w.keys[-1] for w in some]), torch.stack([w.reaches[-1] for w in others])
    one, other = (torch.stack([w.keys[-1] @ w.reaches[-1] for w in side]) for side in (some, others))
    return keys @ reaches.T / (one[:, None] * other).sqrt()


def _restored(told: Mapping[str, Any], vectors: Mapping[str, Tensor]) -> Written:
    return Written(
        fact=Fact.from_json(told["fact"]),
        layers=tuple(told["layers"]),
        keys=vectors["keys"],
        reaches=vectors["reaches"],
        residuals=vectors["residuals"],
        change=vectors["change"][0],
        spec=EditSpec.from_json(told["spec"]),
        told=told["told"],
        shared=tuple(told["shared"]),
        dropped=told["dropped"],
    )
