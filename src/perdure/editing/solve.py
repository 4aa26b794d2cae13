"""Closed forms that write facts into a linear memory, in float64, all as low-rank factors.

A layer is a memory W (out, in) that answers key k with W k. A fact is a key and a residual r, which is to be added to its
answer. Let K (in, N) be the keys, R (out, N) the residuals and M (in, in) a metric: the inverse of the keys' second moment, or a
projector onto directions that other keys do not use. Then every method here is

    dW = R A^-1 U^T,    U = M K,    A = the matrix of that method, made from the Gram matrix G = U^T K,

So a fact is stored as three vectors: its key k, its reach u = M k, and its residual r. Solving again needs no (in, in) matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.core.errors import BadInput, Unsolvable

LEAST = 1e-8  # smallest denominator, as a share of the mean of G's diagonal: below it the update would explode
FINER = (256, 64, 16, 4, 1)  # `rounded` corrects as many entries as there are keys, plus these, in each of its rounds
COLLINEAR = 1e-4  # smallest eigenvalue of the normalised Gram matrix that still separates two facts
DISTANT = 1e-3  # a key of length 1 is pinned if its squared distance from the span of the earlier ones is above this


@dataclass(frozen=True)
class Factors:
    """A low-rank update right @ left, float64.

    Args:
        left: (N, in), one row per fact; left_i . k is the share of fact i's change that key k gets.
        right: (out, N), one column per fact.
    """

    left: Tensor
    right: Tensor

    @property
    def delta(self) -> Tensor:
        """The dense update (out, in)."""
        return self.right @ self.left


def second_moment_metric(moment: Tensor, ridge: float) -> Tensor:
    """Return the Cholesky factor L of C + ridge mean(diag C) I, which `reach` solves with.

    Args:
        moment: C = E[k k^T] (in, in) of the layer's keys on ordinary text.
        ridge: Share of the mean diagonal; it bounds the condition number where the text had too few tokens.

    Raises:
        Unsolvable: The statistic is not finite, or not positive definite with the ridge.
    """
    moment = _finite(moment)
    even = moment + ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
    factor, failed = torch.linalg.cholesky_ex(even)
    if failed:
        raise Unsolvable(
            "the statistics of its keys are not positive definite, so no smallest update exists; choose another layer, "
            "raise ridge, or load the model in float32"
        )
    return factor


def reach(factor: Tensor, keys: Tensor) -> Tensor:
    """Return U = C^-1 K (in, N) from the Cholesky factor of C."""
    return torch.cholesky_solve(keys.double(), factor)


def null_projector(moment: Tensor, energy: float) -> Tensor:
    """Return P (in, in), the projector onto the directions that together have at most the share `energy` of trace(C).

    Args:
        moment: C (in, in), symmetric.
        energy: Share of the trace, in (0, 1).

    Raises:
        BadInput: Every single direction has more energy.
        Unsolvable: The statistic is not finite.

    Source: Fang et al., "AlphaEdit", ICLR 2025, arXiv 2410.02355.
    Deviation: directions are chosen by their share of the energy, not by an absolute eigenvalue of 0.02, which depends on the
        scale of a model's activations.
    """
    values, vectors = torch.linalg.eigh(_finite(moment))  # ascending
    share = values.clamp(min=0).cumsum(0) / values.clamp(min=0).sum()
    count = int((share <= energy).sum())
    if count == 0:
        raise BadInput(f"every direction of the keys has more than the share {energy:g} of their energy; raise energy")
    null = vectors[:, :count]
    return null @ null.T


def metric(moment: Tensor, method: str, ridge: float, energy: float) -> Callable[[Tensor], Tensor]:
    """Return the function that gives keys (in, N) their reach U = M K (in, N) under a method, in float64."""
    if method == "alphaedit":
        projector = null_projector(moment, energy)
        return lambda keys: projector @ keys.double()
    factor = second_moment_metric(moment, ridge)
    return lambda keys: reach(factor, keys)


def rome(keys: Tensor, reaches: Tensor, residuals: Tensor) -> Factors:
    """Return N rank-one updates written one after the other, each exact at its key when it was written.

    A = triu(G): fact j is written on the model with facts i < j, and later facts disturb it.

    Source: Meng et al., "Locating and Editing Factual Associations in GPT", 2022, arXiv 2202.05262, eq. 2; Gupta et al.,
        "Rebuilding ROME", 2024, arXiv 2403.07175, for the same key on both sides.
    Deviation: none; the sequence is solved as one triangular system.
    """
    gram = _gram(keys, reaches)
    return _solved(torch.triu(gram), reaches, residuals)


def emmet(keys: Tensor, reaches: Tensor, residuals: Tensor) -> Factors:
    """Return the smallest update, in the norm of C, that answers every key exactly: dW k_i = r_i.

    A = G = K^T C^-1 K. The rows of `left` are a dual basis of the keys: left_i . k_j = 1 if i = j, else 0. So a fact is
    removed by leaving out its column, and no other fact changes.

    Raises:
        BadInput: Two keys are too similar to get two different answers (usually facts with the same subject).

    Source: Gupta et al., "A Unified Framework for Model Editing", 2024, arXiv 2403.14236, eq. 15.
    Deviation: no 0.1 I is added to G, so that the constraints hold exactly; keys that are too similar are refused instead.
    """
    gram = _gram(keys, reaches)
    scale = gram.diagonal().rsqrt()
    alike = gram * scale[:, None] * scale
    if torch.linalg.eigvalsh((alike + alike.T) / 2)[0] < COLLINEAR:
        raise BadInput("the keys of two facts are all but the same, so no update can change one and not the other")
    return _solved(gram, reaches, residuals)


def memit(keys: Tensor, reaches: Tensor, residuals: Tensor, gain: float) -> Factors:
    """Return argmin ||dW K - R||^2 + lambda tr(dW C dW^T) = R K^T (lambda C + K K^T)^-1, for one layer.

    A = lambda I + G, with lambda = mean(diag G) / gain: a fact alone gets the share gain / (1 + gain) of its residual.

    Source: Meng et al., "Mass-Editing Memory in a Transformer", 2023, arXiv 2210.07229, eq. 14.
    Deviation: lambda follows from a gain, since the effect of the paper's 15000 differs between models.
        (lambda C + K K^T)^-1 K is computed as C^-1 K (lambda I + K^T C^-1 K)^-1, which equals it (Woodbury).
    """
    gram = _gram(keys, reaches)
    strength = gram.diagonal().mean() / gain
    return _solved(gram + strength * torch.eye(len(gram), dtype=gram.dtype), reaches, residuals)


def alphaedit(keys: Tensor, reaches: Tensor, residuals: Tensor, gain: float) -> Factors:
    """Return the update inside the null space: dW^T = (P K K^T + L2 I)^-1 P K R^T, with U = P K.

    A = L2 I + K^T P K, L2 = mean ||P k||^2 / gain. Keys of earlier edits are preserved because they are in K too, with
    the residual that is still missing; it is zero where they are answered already.

    Source: Fang et al., "AlphaEdit", ICLR 2025, arXiv 2410.02355, eq. 14.
    Deviation: L2 relative to the keys, and all live facts solved jointly instead of batch after batch.
    """
    return memit(keys, reaches, residuals, gain)


def independent(keys: Tensor, reaches: Tensor) -> list[int]:
    """Return the keys to pin so that an update is zero at all of them: those that are no linear combination of earlier ones.

    Args:
        keys: (in, n).
        reaches: (in, n) their reach.

    Cost: n^3.
    """
    gram = reaches.double().T @ keys.double()
    scale = gram.diagonal().rsqrt()
    chosen: list[int] = []
    left = gram * scale[:, None] * scale  # Gram matrix of the parts of the keys that are orthogonal to the chosen ones
    for n in range(len(left)):
        if left[n, n] > DISTANT:
            chosen.append(n)
            left = left - left[:, n, None] * left[n] / left[n, n]
    return chosen


def vanishing(factors: Factors, keys: Tensor, reaches: Tensor) -> Factors:
    """Return the factors changed as little as possible, in the norm of C, so that the update is zero at `keys`.

    left' = left - left K (U^T K)^-1 U^T.

    Args:
        factors: Not modified.
        keys: (in, n) keys at which the update is to be zero; without keys the factors are returned unchanged.
        reaches: (in, n) their reach.
    """
    if keys.shape[1] == 0:
        return factors
    gram = _gram(keys, reaches)
    at = factors.left @ keys.double()
    return Factors(factors.left - _solution(gram.T, at.T).T @ reaches.double().T, factors.right)


def balanced(factors: Factors) -> Factors:
    """Return the same update with equal norms of row i of `left` and column i of `right`, so that a cast rounds both alike."""
    left, right = factors.left.norm(dim=1), factors.right.norm(dim=0)
    scale = torch.where((left > 0) & (right > 0), (right / left).sqrt(), torch.ones_like(left))
    return Factors(factors.left * scale[:, None], factors.right / scale)


def rounded(factors: Factors, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return `left` and `right` in float32, with `left` rounded so that an update that is zero at `keys` stays so.

    Rounding each entry to the nearest float32 moves left . k by about 1e-8 |left| |k|. That is much where keys are similar and
    |left| is large. The error is then corrected in entries that are small relative to the keys', where float32 is fine-grained:
    first by the smallest correction, then by smaller ones in fewer and smaller entries.

    Args:
        factors: An update that is zero at `keys`.
        keys: (in, n); without keys every entry is rounded to the nearest.

    Cost: a system of n equations for each row and round.
    """
    made, right = factors.left.float(), factors.right.float()
    if keys.shape[1] == 0:
        return made, right
    keys = keys.double()
    size = keys.norm(dim=1).clamp(min=1e-300)
    for row in made:
        for more in FINER:
            miss = row.double() @ keys
            at = (row.abs() / size).topk(min(keys.shape[1] + more, len(row)), largest=False).indices
            chosen, moved = keys[at], row.clone()
            moved[at] = (row[at].double() - chosen @ torch.linalg.solve_ex(chosen.T @ chosen, miss).result).float()
            if (moved.double() @ keys).norm() < miss.norm():
                row.copy_(moved)
    return made, right


def solved(method: str, keys: Tensor, reaches: Tensor, residuals: Tensor, gain: float) -> Factors:
    """Return the update by the named method."""
    if method in ("emmet", "rome"):
        return (emmet if method == "emmet" else rome)(keys, reaches, residuals)
    return (alphaedit if method == "alphaedit" else memit)(keys, reaches, residuals, gain)


def norm(factors: Factors) -> float:
    """Return the Frobenius norm of the update, without computing its dense matrix."""
    return ((factors.left @ factors.left.T) * (factors.right.T @ factors.right)).sum().clamp(min=0).sqrt().item()


def _gram(keys: Tensor, reaches: Tensor) -> Tensor:
    """Return G = U^T K (N, N), symmetric up to the rounding of stored vectors; U^T K, not K^T U, makes the constraints exact.

    Raises:
        BadInput: A key has almost no reach, so the update would explode.
    """
    gram = reaches.double().T @ keys.double()
    diagonal = gram.diagonal()
    if not torch.isfinite(gram).all() or (diagonal <= LEAST * diagonal.mean()).any():
        worst = int(diagonal.argmin())
        raise BadInput(
            f"fact {worst + 1} of {len(gram)} has a key that the metric maps to almost zero, so it cannot be written "
            f"(k^T M k = {diagonal[worst]:.3g})"
        )
    return gram


def _solved(system: Tensor, reaches: Tensor, residuals: Tensor) -> Factors:
    return Factors(_solution(system, reaches.double().T), residuals.double())


def _solution(system: Tensor, right: Tensor) -> Tensor:
    """Return the solution of a square system.

    Raises:
        Unsolvable: The system is singular.
    """
    solution, failed = torch.linalg.solve_ex(system, right)
    if failed:
        raise Unsolvable("the equations of these facts depend on each other, so no update meets them all")
    return solution


def _finite(moment: Tensor) -> Tensor:
    """Return a second moment in float64.

    Raises:
        Unsolvable: A number in it is infinite or NaN.
    """
    if not torch.isfinite(moment).all():
        raise Unsolvable(
            "the statistics of its keys are not finite; choose another layer, or load the model in float32"
        )
    return moment.double()
