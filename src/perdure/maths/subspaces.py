"""Subspaces of inputs and of weights: which directions hold most of the energy, and which are still free. In float64."""

import torch
from torch import Tensor


def energy_outside(moment: Tensor, basis: Tensor) -> float:
    """Return the share of E||x||^2 that lies outside the span of `basis`; 1 where both are zero.

    1 - tr(M H M^T) / tr(H), where H = E[x x^T] and M has the basis as rows.

    Args:
        moment: H (numbers, numbers), symmetric and positive semidefinite.
        basis: M (k, numbers), orthonormal; k may be 0.
    """
    h, m = moment.double(), basis.double()
    whole = h.trace().item()
    return 1.0 - ((m @ h) * m).sum().item() / whole if whole > 0 else 1.0


def leading_outside(moment: Tensor, basis: Tensor, count: int) -> Tensor:
    """Return the `count` leading eigenvectors of P H P, P = I - M^T M, as orthonormal rows; each is orthogonal to M.

    Where H has energy in fewer directions outside M, the rest are any directions outside M. The sign of a row is such that its
    largest entry is positive.

    Args:
        moment: H (numbers, numbers), symmetric and positive semidefinite.
        basis: M (k, numbers), orthonormal; k may be 0.
        count: At most numbers - k.

    Returns:
        (count, numbers) in float64, orthonormal; basis @ result.T is 0 up to the rounding of `basis`.

    Cost: one eigendecomposition, numbers x numbers.
    """
    return _ordered(moment, basis)[1][:count]


def extended(basis: Tensor, moment: Tensor, share: float) -> Tensor:
    """Return the basis with the fewest leading directions of P H P with which it has `share` of E||x||^2.

    Args:
        basis: M (k, numbers), orthonormal; k may be 0.
        moment: H (numbers, numbers), symmetric and positive semidefinite.
        share: Energy that the result has at least, in (0, 1].

    Returns:
        (k + new, numbers), float32, orthonormal to about 1e-7. The first k rows are those of `basis`.

    Cost: one eigendecomposition, numbers x numbers.
    Source: Liang and Li, "InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning", CVPR 2024, arXiv 2404.00228,
    section 3.3 (DualGPM of Liang and Li, 2023).
    Deviation: the energy is that of x, tr(H), where the authors' code squares the eigenvalues of H; and the fewest directions
    that reach the share, where the code has one less.
    """
    values, directions = _ordered(moment, basis)
    whole = moment.double().trace().item()
    lacking = share * whole - (1.0 - energy_outside(moment, basis)) * whole
    values = values.clamp(min=0)[: len(values) - len(basis)]
    before = values.cumsum(0) - values  # energy of the larger directions
    new = directions[: int(((before < lacking - 1e-12 * whole) & (values > 1e-12 * whole)).sum())]
    return torch.cat([basis.float(), new.float()])


def high_spaces(weight: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return the leading left and right singular directions of a weight, the `share` of them with the largest singular values.

    W = sum_i s_i u_i v_i^T, s_1 >= s_2 >= ...: u_i and v_i of i <= k, k = share x min(out, in), rounded.

    Args:
        weight: W (..., out, in).
        share: In [0, 1].

    Returns:
        U (..., k, out) and V (..., k, in), orthonormal rows in float32.

    Cost: one eigendecomposition of the smaller side, min(out, in)^3, which is several times faster than a decomposition of W.
    """
    w = weight.double()
    wide = w.shape[-1] >= w.shape[-2]
    short = w if wide else w.mT  # (..., least, most)
    kept = round(share * short.shape[-2])
    _, vectors = torch.linalg.eigh(short @ short.mT)
    small = vectors.flip(-1)[..., :kept].mT  # (..., k, least), largest first
    large = torch.linalg.qr((small @ short).mT).Q.mT  # rows s_i v_i, orthogonal but for rounding
    return (small.float(), large.float()) if wide else (large.float(), small.float())


def _ordered(moment: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors (as rows) of P H P, the largest first; those of the span of `basis` come last."""
    h, m = moment.double(), basis.double()
    p = torch.eye(len(h), dtype=torch.float64) - m.T @ m
    inside = max(h.trace().item(), 1.0) * (m.T @ m)  # pushed below every direction outside, zero energy or not
    outside = p @ h @ p
    values, vectors = torch.linalg.eigh((outside + outside.T) / 2 - inside)
    rows = vectors.flip(1).T
    rows = torch.linalg.qr((rows @ p)[: len(h) - len(m)].T).Q.T if len(m) else rows  # no rounding of M is left in them
    sign = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return values.flip(0), rows * sign
