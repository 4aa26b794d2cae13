"""Low-rank patches: factors per weight, their concatenation, and what they add."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patch:
    """A low-rank update of one weight: scale x up @ down.

    Args:
        down: (rank, in), PEFT's lora_A.
        up: (out, rank), PEFT's lora_B.
        scale: Factor of the product, PEFT's lora_alpha / r.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def delta(self) -> Tensor:
        """The dense update (out, in)."""
        return self.scale * (self.up @ self.down)


Patches = dict[str, Patch]  # module name -> patch


def combine(slots: Sequence[Mapping[str, Patch]]) -> Patches:
    """Return one adapter for all slots: factors concatenated in slot order, ranks added up.

    A weight that one slot alone patches keeps its factors and scale as they are, to the bit; otherwise each scale is folded into
    its `up` factor and the result has scale 1. The sum of the deltas is unchanged up to rounding.
    """
    combined: Patches = {}
    for module in sorted({name for slot in slots for name in slot}):
        own = [slot[module] for slot in slots if module in slot]
        if len(own) == 1:
            combined[module] = own[0]
        else:
            up = torch.cat([patch.up * patch.scale for patch in own], dim=1)
            combined[module] = Patch(torch.cat([patch.down for patch in own]), up, 1.0)
    return combined


def to_tensors(patches: Mapping[str, Patch]) -> dict[str, Tensor]:
    """Return patches as the flat named tensors that an object store keeps."""
    tensors: dict[str, Tensor] = {}
    for module, patch in patches.items():
        tensors[f"{module}.down"] = patch.down
        tensors[f"{module}.up"] = patch.up
        tensors[f"{module}.scale"] = torch.tensor(patch.scale, dtype=torch.float64)
    return tensors


def from_tensors(tensors: Mapping[str, Tensor]) -> Patches:
    """Return the patches that `to_tensors` wrote."""
    modules = sorted({name.rsplit(".", 1)[0] for name in tensors})
    return {m: Patch(tensors[f"{m}.down"], tensors[f"{m}.up"], tensors[f"{m}.scale"].item()) for m in modules}
