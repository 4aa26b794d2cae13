"""Merge adapters into one of bounded rank.

Everything here works on updates D_i = s_i B_i A_i and not on their factors. An adapter can be written with any factors B G and
G^-1 A, and a merge of factors would depend on that choice. Where a merge is linear it stays in factor form; otherwise each module
is made dense, one after the other.

Source: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023; Yadav et al., "TIES-Merging", NeurIPS 2023; Yu et al.,
"Language Models are Super Mario" (DARE), ICML 2024; Stoica et al., "Model merging with SVD to tie the KnOTS", ICLR 2025.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from perdure.maths.low_rank import Patch, Patches, combine, squared_norm, truncate, uniform

How = Literal["svd", "average", "ties", "dare", "slerp", "knots"]
PARALLEL = 0.9995  # cosine from which an arc is a line

Weighted = Sequence[tuple[str, Patch, float]]  # task, its update of a module, its weight
Draw = Callable[[str, str, tuple[int, ...]], Tensor]  # task, module, shape -> independent numbers, uniform in [0, 1)


@dataclass(frozen=True)
class Merged:
    """A merged adapter.

    Args:
        patches: Its patches, all of one rank and scale.
        error: ||merge before truncation - merge|| / ||merge before truncation||, Frobenius norms over all modules together.
        angle: Angle in radians between the two updates, each flattened over all modules, where they were merged by `slerp`.
    """

    patches: Patches
    error: float
    angle: float | None = None


def merge(
    adapters: Mapping[str, Mapping[str, Patch]],
    how: How,
    rank: int,
    weights: Mapping[str, float],
    *,
    density: float = 1.0,
    draw: Draw | None = None,
    common: Mapping[str, Patch] | None = None,
    scale: float = 1.0,
) -> Merged:
    """Return common + merge of adapters, truncated to `rank` (Eckart-Young).

        svd       sum_i w_i D_i
        average   sum_i w_i D_i / sum_i w_i
        ties      see `ties`, a module at a time
        dare      sum_i w_i (mask_i * D_i) / density, see `thinned`
        slerp     see `slerp_factors`; two adapters
        knots     see `knots`, a module at a time

    Tasks are added in the order of their names, so that the order in which they are given changes no bit.

    Args:
        adapters: Patches of each task, by task and module. A module that a task does not have counts as 0.
        how: How they are merged.
        rank: Most rank of a module of the result.
        weights: Weight of each task, at least 0 and not all 0.
        density: Share of the entries that `ties`, `knots` and `dare` keep, in (0, 1].
        draw: Gives the numbers that the masks of `dare` are made from, which has to depend on its arguments alone.
        common: What is added to the merge as it is.
        scale: Factor `scale` of each patch of the result; folded into `up`.

    Raises:
        ValueError: `slerp` of other than two adapters, or `dare` without `draw`.

    Cost: a QR of all factors a module where the merge is linear or `knots`; else two dense (out, in) updates a task and module,
    and one eigendecomposition of the smaller side.
    """
    if how == "dare" and draw is None:
        raise ValueError("dare draws masks; give `draw`")
    names, angle = sorted(adapters), None
    factors = {name: weights[name] for name in names}
    if how == "average":
        factors = {name: weight / sum(factors.values()) for name, weight in factors.items()}
    if how == "slerp":
        factors, angle = slerp_factors(adapters, weights)
    under, cut = common or {}, {}
    whole = lost = 0.0
    for module in sorted({*under, *(module for name in names for module in adapters[name])}):
        parts = [(name, adapters[name][module], factors[name]) for name in names if module in adapters[name]]
        below = [under[module]] if module in under else []
        patch, gone, all_of_it = _merge_module(module, parts, below, how, rank, density, draw)
        dtype = (parts[0][1] if parts else under[module]).down.dtype
        cut[module] = Patch(patch.down.to(dtype), (patch.up * (patch.scale / scale)).to(dtype), scale)
        lost, whole = lost + gone, whole + all_of_it
    padded, _ = uniform(cut, max((patch.rank for patch in cut.values()), default=0))
    return Merged(padded, (lost / whole) ** 0.5 if whole else 0.0, angle)


def _merge_module(
    module: str, parts: Weighted, below: Sequence[Patch], how: How, rank: int, density: float, draw: Draw | None
) -> tuple[Patch, float, float]:
    """Return a merged module cut to `rank`, the squared norm of what the cut took away, and that of the whole."""
    patches, weights = [patch for _, patch, _ in parts], [weight for *_, weight in parts]
    dense: Tensor | None = None
    if parts and how == "ties":
        dense = ties([partial(_delta, patch) for patch in patches], weights, density)
    elif parts and draw is not None and how == "dare":
        full = [(name, _delta(patch), weight) for name, patch, weight in parts]
        masked = [w * thinned(delta, density, draw(name, module, tuple(delta.shape))) for name, delta, w in full]
        dense = sum(masked[1:], masked[0])
    if dense is not None:
        return _cut_dense(sum((_delta(patch) for patch in below), dense), rank)
    if parts and how == "knots":
        merged = [knots(patches, weights, density)]
    else:
        merged = [Patch(p.down, p.up * weight, p.scale) for p, weight in zip(patches, weights, strict=True)]
    (all_of_it,) = combine([{module: patch} for patch in (*below, *merged)]).values()
    cut = truncate(all_of_it, rank)
    if cut is all_of_it:
        return cut, 0.0, squared_norm(all_of_it)
    minus = {module: Patch(cut.down, -cut.up, cut.scale)}
    (difference,) = combine([{module: all_of_it}, minus]).values()
    return cut, squared_norm(difference), squared_norm(all_of_it)


def ties(updates: Sequence[Callable[[], Tensor]], weights: Sequence[float], density: float) -> Tensor:
    """Return the TIES merge of updates: trim, elect a sign for each entry, and take the mean of those that agree.

    With D_i cut to the share `density` of its entries with the largest magnitude, and g = sign(sum_i w_i D_i):
    sum of w_i D_i over i with sign(D_i) = g, divided by the sum of these w_i; 0 where no sign wins.

    Args:
        updates: Each returns its dense update, of one shape; each is called twice, so that few are in memory at once.
        weights: One each.
        density: Share of the entries of each update that is kept, in (0, 1].

    Source: Yadav et al. 2023, arXiv 2306.01708.
    Deviation: signs are elected after the weights, as mergekit does; trimmed module by module instead of over the whole model.
    """
    parts = list(zip(updates, weights, strict=True))
    elected = sum(weight * trim(update(), density) for update, weight in parts)
    total, count = torch.zeros_like(torch.as_tensor(elected)), torch.zeros_like(torch.as_tensor(elected))
    sign = torch.sign(torch.as_tensor(elected))
    for update, weight in parts:
        kept = trim(update(), density)
        agrees = (torch.sign(kept) == sign) & (sign != 0)
        total += torch.where(agrees, weight * kept, 0.0)
        count += weight * agrees
    return torch.where(count > 0, total / count.clamp(min=torch.finfo(count.dtype).tiny), 0.0)


def trim(update: Tensor, density: float) -> Tensor:
    """Return an update with 0 in place of all but the share `density` of its entries with the largest magnitude."""
    magnitude = update.abs().flatten()
    kept = max(1, round(density * magnitude.numel()))
    least = magnitude.kthvalue(magnitude.numel() - kept + 1).values
    return torch.where(update.abs() >= least, update, 0.0)  # equal ones stay with it


def thinned(update: Tensor, density: float, drawn: Tensor) -> Tensor:
    """Return DARE's update: each entry kept with probability `density`, and divided by it, so that the mean is the update.

    Args:
        update: Dense, any shape.
        density: In (0, 1].
        drawn: Independent numbers of the same shape, uniform in [0, 1).

    Source: Yu et al. 2024, arXiv 2311.03099.
    Deviation: none; on updates, where it is unbiased. On factors it is not.
    """
    return torch.where(drawn.to(update.device) < density, update / density, 0.0)


def slerp_factors(
    adapters: Mapping[str, Mapping[str, Patch]], weights: Mapping[str, float]
) -> tuple[dict[str, float], float]:
    """Return the factors of two updates on the arc between them, and the angle between them in radians.

    With unit vectors u_i = D_i / |D_i| over all modules together, t = w_2 / (w_1 + w_2) and a the angle between them:
    ((1 - t)|D_1| + t|D_2|) x (sin((1 - t) a) u_1 + sin(t a) u_2) / sin(a). Where |cos a| > 0.9995 it is the straight line
    (1 - t) D_1 + t D_2.

    Raises:
        ValueError: There are not two.

    Source: Shoemake, "Animating rotation with quaternion curves", 1985.
    Deviation: norms are interpolated too; of updates, and not of whole weights, as mergekit does.
    """
    if len(adapters) != 2:
        raise ValueError(f"slerp merges two adapters, got {len(adapters)}")
    a, b = sorted(adapters)
    share = weights[b] / (weights[a] + weights[b])
    length_a, length_b = (math.sqrt(inner(adapters[name], adapters[name])) for name in (a, b))
    cosine = inner(adapters[a], adapters[b]) / (length_a * length_b) if length_a * length_b else 1.0
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    if abs(cosine) > PARALLEL:
        return {a: 1 - share, b: share}, angle
    length = (1 - share) * length_a + share * length_b
    on_a, on_b = (math.sin(part * angle) / math.sin(angle) for part in (1 - share, share))
    return {a: length * on_a / length_a, b: length * on_b / length_b}, angle


def inner(first: Mapping[str, Patch], second: Mapping[str, Patch]) -> float:
    """Return the inner product of two updates, flattened over all modules, without making them dense."""
    total = 0.0
    for module in sorted(first.keys() & second.keys()):
        a, b = first[module], second[module]
        ups = a.up.double().mT @ b.up.double()
        downs = a.down.double() @ b.down.double().mT
        total += a.scale * b.scale * (ups * downs).sum().item()
    return total


def knots(patches: Sequence[Patch], weights: Sequence[float], density: float) -> Patch:
    """Return the TIES merge of updates of one module in the directions that they share, in factor form.

    [D_1 ... D_T] = U S [V_1 ... V_T] is one SVD of the updates side by side; the merge is U x ties(S V_1, ..., S V_T).

    Source: Stoica et al. 2025, arXiv 2410.19735.
    Deviation: from the factors, whose QR leaves a matrix of the sum of the ranks in place of the dense updates.
    """
    basis, parts = aligned(patches)
    merged = ties([partial(_same, part) for part in parts], weights, density)
    return Patch(merged, basis, 1.0)


def aligned(patches: Sequence[Patch]) -> tuple[Tensor, list[Tensor]]:
    """Return an orthonormal basis (out, k) of all outputs, and each update in it (k, in): D_i = basis @ part_i."""
    left, right = torch.linalg.qr(torch.cat([patch.up.double() * patch.scale for patch in patches], dim=-1))
    blocks = right.split([patch.rank for patch in patches], dim=-1)
    parts = [block @ patch.down.double() for block, patch in zip(blocks, patches, strict=True)]
    across = torch.linalg.qr(torch.cat(parts, dim=-1).mT, mode="r").R.mT  # (k, k), with the same left singular vectors
    turn = torch.linalg.svd(across, full_matrices=False).U
    return left @ turn, [turn.mT @ part for part in parts]


def _cut_dense(update: Tensor, rank: int) -> tuple[Patch, float, float]:
    """Return the nearest patch of at most `rank` to a dense update, and the squared norms of the rest and of the whole."""
    wide = update.shape[-1] > update.shape[-2]
    tall = update.mT if wide else update
    values, vectors = torch.linalg.eigh(tall.mT @ tall)  # ascending: squares of the singular values
    rank = min(rank, values.shape[-1])
    directions = vectors[..., -rank:].flip(-1)
    along = tall @ directions  # columns as long as the singular values
    root = along.norm(dim=-2, keepdim=True).sqrt()
    along = torch.where(root > 0, along / root.clamp(min=torch.finfo(root.dtype).tiny), 0.0)
    directions = directions * root
    up, down = (directions, along.mT) if wide else (along, directions.mT)
    lost = values[..., :-rank].clamp(min=0).sum().item()
    return Patch(down, up, 1.0), lost, update.square().sum().item()


def _delta(patch: Patch) -> Tensor:
    return patch.scale * (patch.up.double() @ patch.down.double())


def _same(part: Tensor) -> Tensor:
    return part
