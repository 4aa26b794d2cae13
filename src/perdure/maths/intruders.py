"""Intruder directions: new leading singular vectors of a changed weight that are like none of the weight before.

Source: Shuttleworth et al., "LoRA vs Full Fine-tuning: An Illusion of Equivalence", 2024, arXiv 2410.21228.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.maths.low_rank import Patch

TOP = 10  # leading singular vectors of the changed weight that are looked at
BELOW = 0.5  # largest cosine with a singular vector before, below which a vector is an intruder


@dataclass(frozen=True)
class Intruders:
    """The intruder directions of one changed weight.

    Args:
        values: Their singular values (k,), largest first.
        left: Their left singular vectors (out, k).
        right: Their right singular vectors (in, k).
    """

    values: Tensor
    left: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def correction(self, share: float) -> Patch:
        """Return what has to be added to the changed weight so that `share` of these directions is left.

        (share - 1) sum_j s_j u_j v_j^T, of rank k.

        Args:
            share: 1 leaves the weight as it is, and 0 removes the directions.
        """
        root = self.values.sqrt()
        up = (share - 1) * self.left * root
        return Patch((root[:, None] * self.right.mT).float(), up.float(), 1.0)


def intruders(before: Tensor, after: Tensor, top: int = TOP, below: float = BELOW) -> Intruders:
    """Return the intruder directions of a changed weight.

    Of the `top` singular vectors u'_j of `after`, those with max_i |u_i . u'_j| < `below`, over all left singular vectors u_i of
    `before`. Where singular values of `before` are nearly equal their vectors are arbitrary, and so is this measure.

    Args:
        before: Weight (out, in).
        after: The same weight, changed.
        top: How many singular vectors are looked at.
        below: In (0, 1].

    Cost: two eigendecompositions of the smaller side, in float64.
    Source: Shuttleworth et al. 2024, arXiv 2410.21228, algorithm 1.
    Deviation: by the eigenvectors of W W^T or W^T W instead of a decomposition of W.
    """
    known, _, _ = _singular(before.double())
    left, values, right = (part[..., :top] for part in _singular(after.double()))
    new = (known.mT @ left).abs().amax(0) < below
    return Intruders(values[new], left[:, new], right[:, new])


def _singular(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return left singular vectors (out, k), singular values (k,), largest first, and right vectors (in, k); k = min(out, in)."""
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.mT
    _, vectors = torch.linalg.eigh(tall.mT @ tall)
    vectors = vectors.flip(-1)
    along = tall @ vectors
    values = along.norm(dim=0)
    others = torch.where(values > 0, along / values.clamp(min=torch.finfo(values.dtype).tiny), 0.0)
    return (others, values, vectors) if tall is weight else (vectors, values, others)
