"""Facts as they were written, and which of them have the same key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from perdure.editing.batches import batch_of
from perdure.editing.facts import Fact
from perdure.editing.spec import EditSpec

VECTORS = ("keys", "reaches", "residuals", "change")
ALIKE = 0.95  # cosine of two keys, in the metric, from which they count as the same key: one subject at the start of its prompts


@dataclass(frozen=True)
class Written:
    """One fact as it was written.

    Args:
        fact: The fact.
        layers: Blocks it is written into.
        keys: (layers, in) inputs of the down-projections at the subject's last token.
        reaches: (layers, in) the keys times the metric of each layer (see `solve`).
        residuals: (layers, out) what the update shall add at each key.
        change: (out,) result of the optimisation; a fact that is spread over layers divides it among them.
        spec: Settings of the optimisation.
        optimised: Loss, steps and size of the optimisation, for people.
        shared: Ids of the facts, itself among them, that share one change because their keys are too alike; empty if none does.
        dropped: It is out of force, and the update is zero at its key.
        request: The facts of the same edit, itself among them; empty if it was alone. Some may not be in the set.
        batch: Name of the batch of them that its vectors were optimised in, on which their rounding depends.
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
    request: tuple[Fact, ...] = ()
    batch: str = ""

    @property
    def id(self) -> str:
        """Id of the fact."""
        return self.fact.id

    @property
    def companions(self) -> list[str]:
        """Ids of the facts, itself among them, in the batch that it would be optimised in now."""
        return batch_of(self.id, [fact.id for fact in self.request], self.spec.batch) if self.request else [self.id]


def with_key_of(fresh: Written, dropped: Sequence[Written]) -> set[str]:
    """Return the ids of the dropped facts that have the key of a new one, or, in some of its layers alone, its subject."""
    alone = [w for w in dropped if w.layers != fresh.layers and set(w.layers) & set(fresh.layers)]
    ids = {w.id for w in alone if w.fact.subject == fresh.fact.subject}  # its keys there are not known yet
    if mine := [w for w in dropped if w.layers == fresh.layers]:
        ids |= {w.id for w, cosine in zip(mine, cosines([fresh], mine)[0], strict=True) if cosine > ALIKE}
    return ids


def alike(written: Sequence[Written]) -> list[list[Written]]:
    """Return facts of the same layers in groups of which each has its key in common, chains included, in order."""
    near = cosines(written, written) > ALIKE
    first = list(range(len(written)))  # of each fact's group
    for i, j in near.triu(1).nonzero().tolist():
        a, b = sorted((first[i], first[j]))
        first = [a if n == b else n for n in first] if a != b else first
    groups: dict[int, list[Written]] = {}
    for n, w in zip(first, written, strict=True):
        groups.setdefault(n, []).append(w)
    return list(groups.values())


def cosines(some: Sequence[Written], others: Sequence[Written]) -> Tensor:
    """Return the cosines of the keys in the metric, in the last layer of each (some, others)."""
    keys, reaches = torch.stack([w.keys[-1] for w in some]), torch.stack([w.reaches[-1] for w in others])
    one, other = (torch.stack([w.keys[-1] @ w.reaches[-1] for w in side]) for side in (some, others))
    return keys @ reaches.T / (one[:, None] * other).sqrt()
