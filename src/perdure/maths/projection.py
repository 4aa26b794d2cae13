"""Geometry of gradients: what to do with one that conflicts with others. Pure functions on dicts of tensors.

All dot products are over the whole model, never per tensor. They see the tensors of one process: where parameters or their
gradients are sharded, the sums of `dot`, `gram` and `project_out` would have to be reduced over all processes first.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from perdure.maths.precision import wide

Tensors = dict[str, Tensor]
HELD = 1e-4  # share of the length of held factors that lies in the space they are held out of, by rounding
FAINT = 1e-3  # length under which what is left of a unit vector is taken for rounding (float32 sees about 1e-7)


def dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the dot product over all tensors together, summed in float32 or wider."""
    return torch.stack([(wide(value) * wide(b[name])).sum() for name, value in a.items()]).sum().item()


def gram(vectors: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
    """Return the dot products of all pairs, (vectors, vectors) in float64."""
    made = np.zeros((len(vectors), len(vectors)))
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors[: i + 1]):
            made[i, j] = made[j, i] = dot(a, b)
    return made


def combine(factors: Sequence[float], vectors: Sequence[Mapping[str, Tensor]]) -> Tensors:
    """Return the sum of factor x vector; vectors whose factor is 0 cost nothing."""
    terms = [(float(f), v) for f, v in zip(factors, vectors, strict=True) if f]
    return {name: sum((f * wide(v[name]) for f, v in terms), torch.zeros_like(vectors[0][name])) for name in vectors[0]}


def project_conflict(grad: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensors:
    """Remove from `grad` the part that would raise the reference loss.

    g - (g.r / r.r) r   if g.r < 0, else g,      where g is the gradient of the step, r of the memory.

    Args:
        grad: Gradient of the step, by parameter name. Not modified.
        reference: Gradient of the loss to protect, same names and shapes.

    Returns:
        New dict, same shapes. dot(result, reference) >= 0 up to float rounding, and it is never longer than `grad`.

    Cost: two dot products over the parameters; the caller pays the backward of `reference`.
    Source: Chaudhry et al., "Efficient Lifelong Learning with A-GEM", ICLR 2019, arXiv 1812.00420, eq. 11.
    Deviation: returns `grad` where r.r = 0, an edge we define.
    """
    along, size = dot(grad, reference), dot(reference, reference)
    return combine([1.0, -along / size], [grad, reference]) if along < 0 < size else dict(grad)


def project_cone(
    grad: Mapping[str, Tensor], references: Sequence[Mapping[str, Tensor]], margin: float = 0.0
) -> Tensors:
    """Return the vector nearest to `grad` that raises no reference loss; `grad` itself where it raises none.

    g + sum_k v_k r_k,   v = argmin 1/2 |g + sum_k v_k r_k|^2  subject to  v_k >= margin.

    With v_k at its bound or above, <result, r_k> >= 0 for every k whatever the margin (the conditions of Karush, Kuhn and
    Tucker). A margin above 0 also takes a step down the reference losses.

    Args:
        grad: Gradient of the step, by parameter name.
        references: Gradients of the losses to protect, same names and shapes.
        margin: Least v_k, at least 0; with 0 the result is the projection on the cone, never longer than `grad`.

    Cost: n (n + 3) / 2 dot products for n references, and one n x n quadratic program in float64.
    Source: Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, arXiv 1706.08840, eq. 11.
    Deviation: the margin bounds v from below, as in the authors' code; the paper's text adds it to v, which can break a
    constraint where two references conflict.
    """
    along = np.array([dot(grad, reference) for reference in references])
    if not (along < 0).any():
        return dict(grad)
    products = gram(references)
    slack = nonnegative_quadratic(products, along + margin * products.sum(1))
    return combine([1.0, *(margin + slack)], [grad, *references])


def nonnegative_quadratic(products: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Return argmin over v >= 0 of 1/2 v.P v + q.v, by nonnegative least squares on a square root of P.

    |A v - b|^2 / 2 has this P and q where A'A = P and A'b = -q; eigenvectors of P give A and b.

    Args:
        products: P (n, n), symmetric and positive semidefinite, such as a Gram matrix; it may be singular.
        linear: q (n,), in the range of P.

    Returns:
        v (n,), exact to some 1e-13; to some 1e-7 where vectors of the Gram matrix agree to 1e-7, which is float32's rounding.

    Cost: an eigendecomposition and a few least squares, all n x n.
    Deviation: variables are scaled so that P has a unit diagonal, and one whose P_kk is 0 stays 0.
    """
    from scipy.optimize import nnls  # not above: it takes longer to import than numpy, and few methods need it

    length = np.sqrt(np.maximum(np.diag(products), 0.0))
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    values, vectors = np.linalg.eigh(products * np.outer(scale, scale))
    large = values > len(values) * np.finfo(float).eps  # the rest is rounding: the largest is at least 1
    root = np.sqrt(values[large])
    matrix, target = root[:, None] * vectors[:, large].T, -(vectors[:, large].T @ (linear * scale)) / root
    return nnls(matrix, target)[0] * scale


def deconflict(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensors:
    """Return the sum of two gradients, each without its part against the other (gradient surgery).

    project_conflict(a, b) + project_conflict(b, a); their plain sum where a.b >= 0. Symmetric.

    Returns:
        New dict; its dot product with either is at least 0, and it is never longer than a and b together.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, arXiv 2001.06782, algorithm 1.
    Deviation: none; with two tasks the paper's random order has nothing to choose.
    """
    aa, ab, bb = dot(a, a), dot(a, b), dot(b, b)
    against = min(ab, 0.0)  # |ab| <= |a| |b|, so it is 0 where either is
    return combine([1.0 - (against / aa if against else 0.0), 1.0 - (against / bb if against else 0.0)], [a, b])


def avert_conflict(a: Mapping[str, Tensor], b: Mapping[str, Tensor], radius: float) -> Tensors:
    """Return twice the vector near the mean of two gradients that serves the worse-served of them best.

    2 d,   d = argmax min(<a, d>, <b, d>)  subject to  |d - m| <= radius |m|,   m = (a + b) / 2
             = m + radius |m| g_w / |g_w|,   g_w = w a + (1 - w) b,   w = argmin over [0, 1] of <g_w, m> + radius |m| |g_w|.

    Args:
        a: One gradient, by parameter name.
        b: The other, same names and shapes.
        radius: The paper's c, in [0, 1); 0 gives the plain sum.

    Returns:
        New dict. Twice, so that it compares with the sum a + b.

    Cost: three dot products; w in closed form.
    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, arXiv 2110.14048, eq. 3-4.
    Deviation: w in closed form instead of a numerical search, and no division by 1 + c^2 (an option of the authors' code);
    the mean itself where g_w = 0.
    """
    aa, ab, bb = dot(a, a), dot(a, b), dot(b, b)
    reach = radius * max(aa + 2 * ab + bb, 0.0) ** 0.5 / 2  # radius |m|
    w = _worst_mix(aa, ab, bb, reach)
    size = max(w * w * aa + 2 * w * (1 - w) * ab + (1 - w) ** 2 * bb, 0.0) ** 0.5
    step = reach / size if size > 1e-7 * (aa**0.5 + bb**0.5) else 0.0
    return combine([1 + 2 * step * w, 1 + 2 * step * (1 - w)], [a, b])


def _worst_mix(aa: float, ab: float, bb: float, reach: float) -> float:
    """Return w in [0, 1] that minimises <g_w, m> + reach |g_w|, convex in w, for g_w = w a + (1 - w) b."""
    slope = (aa - bb) / 2  # of <g_w, m>
    bend = aa - 2 * ab + bb  # |g_w|^2 = bend (w - centre)^2 + floor
    if bend <= 0:
        return 0.5
    centre = (bb - ab) / bend
    floor = max(bb - bend * centre**2, 0.0)
    room = reach**2 * bend - slope**2
    if room <= 0:  # the linear part wins everywhere
        return 0.0 if slope > 0 else 1.0 if slope < 0 else 0.5
    return min(max(centre - slope * (floor / (bend * room)) ** 0.5, 0.0), 1.0)


def project_out(rows: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> Tensors:
    """Return the rows without their part in the span of an orthonormal basis: x - sum_k <x, u_k> u_k.

    Args:
        rows: Vectors (rows, *shape) by parameter name.
        basis: Directions (k, *shape), orthonormal over all parameters together; a name it lacks counts as zeros.

    Returns:
        New dict. Linear and idempotent up to rounding; no row gets longer.

    Cost: two passes over the basis.
    """
    known = {name: basis[name].flatten(1) for name in rows if name in basis}  # in one order: sums must round alike
    if not known:
        return dict(rows)
    flat = {name: rows[name].to(u.dtype).flatten(1) for name, u in known.items()}
    along = torch.stack([flat[name] @ u.T for name, u in known.items()]).sum(0)  # (rows, k)
    return {n: (flat[n] - along @ known[n]).view_as(x) if n in known else x for n, x in rows.items()}


def row_basis(rows: Tensor) -> Tensor:
    """Return an orthonormal basis (..., k, numbers) of the space that `rows` (..., rows, numbers) span, in float32.

    Directions whose singular value is below 1e-6 of the largest are left out: rounding made them. Of stacked matrices, those
    that span less than the others have zeros in their place. Cost: one SVD in float64.
    """
    _, sizes, directions = torch.linalg.svd(rows.detach().double().cpu(), full_matrices=False)
    there = sizes > 1e-6 * sizes.amax(-1, keepdim=True)  # the largest come first
    return (directions * there[..., None])[..., : int(there.sum(-1).max()), :].float()


def joined_basis(basis: Tensor, rows: Tensor) -> Tensor:
    """Return an orthonormal basis (..., k + new, numbers) of the space of `basis` and of `rows` together, in float32.

    Rows of which less than 1e-6 lies outside the basis add nothing. Cost: one SVD of `rows` in float64, however large the basis.

    Args:
        basis: (..., k, numbers), orthonormal; the first k of the result.
        rows: (..., rows, numbers), of any length.
    """
    wide = rows.detach().double()
    left = outside(outside(wide, basis), basis)  # twice, as the basis is orthonormal up to float32
    there = left.norm(dim=-1, keepdim=True) > 1e-6 * wide.norm(dim=-1, keepdim=True)
    return torch.cat([basis, row_basis(left * there)], -2)


def outside(rows: Tensor, basis: Tensor) -> Tensor:
    """Return `rows` (..., rows, numbers) without their part in the space of an orthonormal `basis` (..., k, numbers).

    r - (r Q^T) Q, in float64, because in float32 once leaves as much of the space as rounding makes.
    """
    wide = rows.detach().double()
    q = basis.to(wide.device).double()
    return (wide - (wide @ q.mT) @ q).to(rows.dtype)


def extend_basis(basis: Mapping[str, Tensor], rows: Mapping[str, Tensor], keep: float = 1.0) -> Tensors:
    """Return the basis with the fewest new directions that, with the old ones, contain the share `keep` of the rows.

    Rows count by their direction alone. Their part outside the basis is split into principal directions, largest first.

    Args:
        basis: Directions (k, *shape) by parameter name, orthonormal over all parameters together; may be empty.
        rows: Vectors (rows, *shape) by parameter name, of any length; those of length 0 count for nothing.
        keep: Share of the rows' squared length that the basis must contain, in [0, 1]; 1 spans them.

    Returns:
        New dict of (k + new, *shape), float32, orthonormal to about 1e-6; directions below a length of 1e-3 are left out.

    Cost: four passes over basis and rows, and an eigendecomposition (rows x rows) in float64.
    Source: Farajtabar et al., "Orthogonal Gradient Descent for Continual Learning", AISTATS 2020, arXiv 1910.07104,
    algorithm 1. Deviation: principal directions instead of Gram-Schmidt in the order of rows, so that `keep` can leave out
    the least.
    """
    flat = {name: value.float().flatten(1) for name, value in rows.items()}
    length = torch.stack([value.square().sum(1) for value in flat.values()]).sum(0).sqrt()
    seen = length > 0
    old = {name: value.float().flatten(1) for name, value in basis.items()}
    left = project_out({name: value[seen] / length[seen, None] for name, value in flat.items()}, old)
    lacked = sum(value.square().sum().item() for value in left.values())
    new = _principal(left, lacked - (1 - keep) * int(seen.sum()))
    new = _principal(project_out(new, old), torch.inf)  # again: once leaves rounding behind in float32
    return {
        name: torch.cat([old.get(name, value[:0]), value]).reshape(-1, *rows[name].shape[1:])
        for name, value in new.items()
    }


def _principal(rows: Tensors, wanted: float) -> Tensors:
    """Return orthonormal directions (k, numbers) of `rows` (rows, numbers), largest first, up to `wanted` squared length."""
    products = (
        torch.stack([(value @ value.T).cpu() for value in rows.values()]).double().sum(0)
    )  # not all devices have it
    values, vectors = torch.linalg.eigh(products)
    values, vectors = values.flip(0), vectors.flip(1)
    before = values.cumsum(0) - values  # squared length in the larger directions
    chosen = (values > FAINT**2) & (before < wanted - 1e-9)
    turn = (vectors[:, chosen] / values[chosen].sqrt()).T.float()
    return {name: turn.to(value.device) @ value for name, value in rows.items()}
