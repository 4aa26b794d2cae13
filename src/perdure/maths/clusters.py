"""Centres that represent a set of directions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def spherical_means(points: Tensor, size: int, rounds: int = 20) -> Tensor:
    """Return at most `size` unit centres of unit `points`: each maximises the sum of cosines with the points nearest to it.

    The first centre is the point nearest to the mean direction, each further one the point least like those before it, so the
    result depends on the points alone, and not on chance. A centre that loses its points stays where it was.

    Args:
        points: (points, dimensions), each of length 1, at least one.
        size: Centres wanted; 1 gives the mean direction.
        rounds: Assignments at most; it ends earlier when none changes.

    Returns:
        (min(size, points), dimensions), each of length 1.

    Source: Dhillon & Modha, "Concept Decompositions for Large Sparse Text Data using Clustering", 2001.
    Deviation: farthest-first start instead of a random partition.
    """
    first = (points @ points.mean(0)).argmax()
    chosen, nearest = [first], points @ points[first]
    while len(chosen) < min(size, len(points)):
        chosen.append(nearest.argmin())
        nearest = nearest.maximum(points @ points[chosen[-1]])
    centres = points[torch.stack(chosen)]
    owner = None
    for _ in range(rounds):
        again = (points @ centres.T).argmax(-1)
        if owner is not None and torch.equal(again, owner):
            break
        owner = again
        sums = torch.zeros_like(centres).index_add(0, owner, points)
        centres = torch.where(sums.norm(dim=-1, keepdim=True) > 0, normalize(sums, dim=-1), centres)
    return centres


def k_means(points: Tensor, first: Sequence[int], rounds: int = 100) -> tuple[Tensor, Tensor]:
    """Return centres (len(first), dimensions), and the centre of each point (points,), which is the nearest one.

    A centre that loses its points stays where it was.

    Args:
        points: (points, dimensions), at least one.
        first: Points that are the first centres, such as a keyed draw.
        rounds: Assignments at most; it ends earlier when none changes.

    Source: Lloyd, "Least Squares Quantization in PCM", 1982.
    Deviation: none.
    """
    centres = points[list(first)]
    owner = torch.cdist(points, centres).argmin(-1)
    for _ in range(rounds):
        sums, counts = (
            torch.zeros_like(centres).index_add(0, owner, points),
            torch.bincount(owner, minlength=len(centres)),
        )
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        again = torch.cdist(points, centres).argmin(-1)
        if torch.equal(again, owner):
            break
        owner = again
    return centres, owner
