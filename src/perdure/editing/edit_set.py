"""The edit set: every fact in force with the vectors it was written by, and the update solved from all of them at once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.editing import solve
from perdure.editing.batches import batch_name, batch_of
from perdure.editing.facts import Fact
from perdure.editing.solve import Factors
from perdure.editing.spec import SPREAD, EditSpec
from perdure.maths.low_rank import Patch, Patches

FORMAT = 2
SET, CALL, FACT = "edits/set", "edits/call/{}", "edits/fact/{}/{}"  # names of the tensors that a set is stored in
VECTORS = ("keys", "reaches", "residuals", "change")
ALIKE = 0.95  # cosine of two keys, in the metric, from which they are taken for one: one subject that its prompts begin with
MEMORY = ("method", "gain", "ridge", "energy")  # settings that all facts of one set share: they define its joint solve

Tensors = dict[str, Tensor]


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
        optimised: Loss, steps and size of the optimisation, for people.
        shared: Ids of the facts, itself among them, whose keys are so alike that one change says all; empty if it is alone.
        dropped: It is out of force, and its key is kept free of any update.
        beside: The facts that were asked for at once, itself among them; empty if it was alone. Some may not be in the set.
        batch: Name of those of them that its vectors were found together with, on which their rounding depends.
    """

    fact: Fact
    layers: tuple[int, ...]
    keys: Tensor
    reaches: Tensor
    residuals: Tensor
    change: Tensor
    spec: EditSpec
    optimised: Mapping[str, float] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    dropped: bool = False
    beside: tuple[Fact, ...] = ()
    batch: str = ""

    @property
    def id(self) -> str:
        """Id of the fact."""
        return self.fact.id

    @property
    def companions(self) -> list[str]:
        """Ids of the facts that it is found in one batch with, itself among them, if it is found now."""
        return batch_of(self.id, [fact.id for fact in self.beside], self.spec.batch) if self.beside else [self.id]


@dataclass(frozen=True)
class EditSet:
    """Facts written into one model state; immutable, every change returns a new set.

    The update is a function of the facts in their order and nothing else. So a set from which a fact was resolved away is,
    once those found in its company are found again (see `stale`), to the bit the set in which it never was.

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

        So are dropped facts whose key one of them has, whoever they are about.

        Raises:
            BadInput: See `check`.
        """
        for spec in dict.fromkeys(w.spec for w in new):
            self.check([w.fact for w in new if w.spec == spec], spec)
        kept: dict[str, Written] = {w.id: w for w in self.written}
        filled: dict[tuple[str, ...], set[str]] = {}  # ids by slot
        for w in self.written:
            for slot in w.fact.slots:
                filled.setdefault(slot, set()).add(w.id)
        for fresh in new:
            freed = _with_key_of(fresh, self.dropped)  # a key cannot be written and free of any update at once
            for gone in {fresh.id, *freed}.union(*map(filled.pop, fresh.fact.slots & filled.keys())):
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

    def resolve(self, *fact_ids: str) -> "EditSet":
        """Return the set as if some facts, in force or dropped, had never been made.

        The model is needed to finish where others were found in one batch with them (see `stale`), shared their key (see
        `unsettled`), or are spread over layers.
        """
        gone = {self.find(fact_id).id for fact_id in fact_ids}
        calls = {w.beside: _without(w.beside, gone) for w in self.written}
        rest = tuple(replace(w, beside=calls[w.beside]) for w in self.written if w.id not in gone)
        return replace(self, written=rest if any(not w.dropped for w in rest) else ())

    def stale(self) -> list[Written]:
        """Return the facts that would be found in other company now, or that were found for a key that is theirs alone now."""
        alone = {group[0].id for group in self.unsettled() if len(group) == 1}
        return [w for w in self.written if w.id in alone or w.batch != batch_name(w.companions)]

    @property
    def unfinished(self) -> bool:
        """Whether the model has to be asked before the set is what it would be without the facts that are gone."""
        spread = bool(self.live) and self.live[0].spec.method in SPREAD
        return spread or bool(self.unsettled()) or bool(self.stale())

    def factors(self) -> dict[str, Factors]:
        """Return the update by module: one row and column for each live fact written there, in float64.

        Raises:
            BadInput: Two facts cannot be told apart by their keys.
        """
        layers = sorted({layer for w in self.live for layer in w.layers})
        return {self.modules[layer]: self.factors_at(layer) for layer in layers}

    def factors_at(self, layer: int) -> Factors:
        """Return the update of one layer that live facts are written into."""
        pinned = {w.id for w in self.pins(layer)}
        return _solve_layer([w for w in self.written if layer in w.layers and (not w.dropped or w.id in pinned)], layer)

    def pins(self, layer: int) -> list[Written]:
        """Return the dropped facts of a layer whose keys, pinned, leave no update at those of the other dropped facts either.

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

    def packed(self) -> tuple[Tensors, list[Tensors]]:
        """Return the set as named tensors: what ties its facts together, and apart from it each fact, which never changes.

        The update is not among them: it is solved again from the vectors, which gives the same bits on the same machine.
        """
        calls = {call: n for n, call in enumerate(dict.fromkeys(w.beside for w in self.written if w.beside))}
        told = {
            "format": FORMAT,
            "modules": {str(layer): name for layer, name in self.modules.items()},
            "state": self.state,
            "calls": [_name(call) for call in calls],
            "written": [
                {"fact": w.id, "shared": list(w.shared), "dropped": w.dropped, "call": calls.get(w.beside)}
                for w in self.written
            ],
        }
        asked = [{CALL.format(_name(call)): _bytes_of([fact.to_json() for fact in call])} for call in calls]
        return {SET: _bytes_of(told)}, [*asked, *(_packed(w) for w in self.written)]

    def to_tensors(self) -> Tensors:
        """Return the set as one dict of named tensors."""
        head, parts = self.packed()
        return {name: tensor for part in (head, *parts) for name, tensor in part.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "EditSet":
        """Return the set that `to_tensors` wrote.

        Raises:
            BrokenStore: The tensors are no edit set, or of another format.
        """
        try:
            told = _json_of(tensors[SET])
            if told["format"] != FORMAT:
                raise BrokenStore(
                    f"the edit set has format {told['format']}, this perdure knows {FORMAT}; use the perdure that wrote it, or "
                    "roll back to before it and edit again"
                )
            calls = [tuple(map(Fact.from_json, _json_of(tensors[CALL.format(name)]))) for name in told["calls"]]
            written = [_restored(line, tensors, calls) for line in told["written"]]
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


def _with_key_of(fresh: Written, dropped: Sequence[Written]) -> set[str]:
    """Return the ids of the dropped facts that have the key of a new one, or, in some of its layers alone, its subject."""
    alone = [w for w in dropped if w.layers != fresh.layers and set(w.layers) & set(fresh.layers)]
    found = {w.id for w in alone if w.fact.subject == fresh.fact.subject}  # its keys there are not known yet
    if mine := [w for w in dropped if w.layers == fresh.layers]:
        found |= {w.id for w, cosine in zip(mine, _cosines([fresh], mine)[0], strict=True) if cosine > ALIKE}
    return found


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


def _packed(w: Written) -> Tensors:
    """Return one fact's own tensors: its vectors, and what it says."""
    told = {
        "fact": w.fact.to_json(),
        "layers": list(w.layers),
        "spec": w.spec.to_json(),
        "told": dict(w.optimised),
        "batch": w.batch,
    }
    vectors = {FACT.format(w.id, name): getattr(w, name).float() for name in VECTORS}
    return {FACT.format(w.id, "told"): _bytes_of(told), **vectors}


def _restored(line: Mapping[str, Any], tensors: Mapping[str, Tensor], calls: Sequence[tuple[Fact, ...]]) -> Written:
    told = _json_of(tensors[FACT.format(line["fact"], "told")])
    return Written(
        fact=Fact.from_json(told["fact"]),
        layers=tuple(told["layers"]),
        spec=EditSpec.from_json(told["spec"]),
        optimised=told["told"],
        shared=tuple(line["shared"]),
        dropped=line["dropped"],
        beside=() if line["call"] is None else calls[line["call"]],
        batch=told["batch"],
        **{name: tensors[FACT.format(line["fact"], name)] for name in VECTORS},
    )


def _without(call: tuple[Fact, ...], gone: set[str]) -> tuple[Fact, ...]:
    """Return facts that were asked for at once without some of them; one that is left was asked for alone."""
    left = tuple(fact for fact in call if fact.id not in gone)
    return left if len(left) > 1 else ()


def _name(call: Sequence[Fact]) -> str:
    return content_hash([fact.id for fact in call])


def _bytes_of(told: Any) -> Tensor:
    text = json.dumps(told, sort_keys=True, ensure_ascii=False).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _json_of(text: Tensor) -> Any:
    return json.loads(bytes(text.tolist()))
