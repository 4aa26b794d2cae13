"""Low-rank patches: factors per weight, their concatenation, their compression, and what they add.

Own code instead of PEFT's `add_weighted_adapter`: that needs a loaded model, and its "cat" multiplies the factors by the scale
also where one slot alone patches a weight. Here the factors of such a slot stay the same to the bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patch:
    """A low-rank update of one weight, or of as many as there are experts: scale x up @ down.

    Args:
        down: (rank, in), PEFT's lora_A; or (experts, rank, in).
        up: (out, rank), PEFT's lora_B; or (experts, out, rank).
        scale: Factor of the product, PEFT's lora_alpha / r.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The rank, of each expert where there are some."""
        return self.down.shape[-2]

    @property
    def delta(self) -> Tensor:
        """The dense update (out, in), or (experts, out, in)."""
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
            up = torch.cat([patch.up * patch.scale for patch in own], dim=-1)
            combined[module] = Patch(torch.cat([patch.down for patch in own], dim=-2), up, 1.0)
    return combined


def to_tensors(patches: Mapping[str, Patch]) -> dict[str, Tensor]:
    """Return patches as the flat named tensors of an object store."""
    tensors: dict[str, Tensor] = {}
    for module, patch in patches.items():
        tensors[f"{module}.down"] = patch.down
        tensors[f"{module}.up"] = patch.up
        tensors[f"{module}.scale"] = torch.tensor(patch.scale, dtype=torch.float64)
    return tensors


def from_tensors(tensors: Mapping[str, Tensor]) -> Patches:
    """Return the patches that `to_tensors` wrote."""
    modules = sorted(name.removesuffix(".down") for name in tensors if name.endswith(".down"))
    return {m: Patch(tensors[f"{m}.down"], tensors[f"{m}.up"], tensors[f"{m}.scale"].item()) for m in modules}


def truncate(patch: Patch, rank: int) -> Patch:
    """Return the nearest patch of at most `rank`, in the Frobenius norm; one that is no larger comes back as it is.

    With up = Qu Ru, down^T = Qd Rd and Ru Rd^T = U S V^T:  up' = Qu U_r sqrt(S_r),  down' = sqrt(S_r) V_r^T Qd^T.

    Args:
        patch: Not modified; its dtype and scale stay, and the work is done in float64.
        rank: At least 1.

    Source: Eckart and Young, "The approximation of one matrix by another of lower rank", 1936.
    Deviation: none; the QR factors keep the decomposition at (rank, rank) instead of (out, in).
    """
    if patch.rank <= rank:
        return patch
    left, up = torch.linalg.qr(patch.up.double())
    right, down = torch.linalg.qr(patch.down.double().mT)
    u, s, v = torch.linalg.svd(up @ down.mT)
    rank = min(rank, s.shape[-1])  # no update has a rank above the sides of its weight
    root = s[..., :rank].sqrt()
    return Patch(
        (root[..., None] * (right @ v[..., :rank, :].mT).mT).to(patch.down.dtype),
        (left @ u[..., :rank] * root[..., None, :]).to(patch.up.dtype),
        patch.scale,
    )


def relative_error(patches: Mapping[str, Patch], others: Mapping[str, Patch]) -> float:
    """Return ||patches - others|| / ||patches||, Frobenius norms over all weights together; 0 where all is zero."""
    minus = {module: Patch(patch.down, -patch.up, patch.scale) for module, patch in others.items()}
    difference = combine([patches, minus])
    whole = sum(squared_norm(patch) for patch in patches.values())
    return (sum(squared_norm(patch) for patch in difference.values()) / whole) ** 0.5 if whole else 0.0


def squared_norm(patch: Patch) -> float:
    """Return the squared Frobenius norm of an update, without making it dense."""
    up = torch.linalg.qr(patch.up.double(), mode="r").R
    down = torch.linalg.qr(patch.down.double().mT, mode="r").R
    return (patch.scale**2 * (up @ down.mT).square().sum()).item()


def uniform(patches: Mapping[str, Patch], rank: int) -> tuple[Patches, float]:
    """Return the patches with factors of one `rank`, padded with zeros, and the one scale that they share.

    A scale that all have stays as it is; otherwise each is folded into its `up` and the shared scale is 1. Padding and a fold by
    a power of two leave every delta as it was, to the bit.

    Args:
        patches: At least one.
        rank: At least the largest rank among them.
    """
    scales = {patch.scale for patch in patches.values()}
    shared = scales.pop() if len(scales) == 1 else 1.0
    padded = {}
    for module, patch in patches.items():
        missing = rank - patch.rank
        up = patch.up if patch.scale == shared else patch.up * patch.scale
        padded[module] = Patch(
            torch.nn.functional.pad(patch.down, (0, 0, 0, missing)), torch.nn.functional.pad(up, (0, missing)), shared
        )
    return padded, shared
