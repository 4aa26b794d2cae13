"""Penalties that hold weights near where they were. Pure functions of tensors by parameter name."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.maths.precision import wide

Tensors = dict[str, Tensor]
Factors = tuple[Tensor, Tensor]  # up (out, rank) and down (rank, in)


def quadratic(
    params: Mapping[str, Tensor], anchors: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return 1/2 sum_i importance_i (w_i - anchor_i)^2, a scalar that can be differentiated by `params`.

    Args:
        params: Weights w; those without importance are free.
        anchors: Where each is pulled to; same shapes.
        importance: How strongly, not negative; same shapes, at least one. 1 for every anchor if None.

    Cost: three passes over the weights, and one more in the backward.
    """
    pulled = anchors if importance is None else importance
    names = [name for name in params if name in pulled]  # in one order, whatever a checkpoint made of the others'
    factors = None if importance is None else [importance[name] for name in names]
    return _Quadratic.apply([anchors[name] for name in names], factors, *(params[name] for name in names))


class _Quadratic(torch.autograd.Function):
    """Value and gradient share importance x (w - anchor), and hundreds of small tensors are one call each way."""

    @staticmethod
    def forward(ctx: Any, anchors: list[Tensor], importance: list[Tensor] | None, *params: Tensor) -> Tensor:
        gaps = torch._foreach_sub(list(params), anchors)
        pulls = gaps if importance is None else torch._foreach_mul(gaps, importance)
        ctx.save_for_backward(*pulls)
        parts = [torch.dot(gap.flatten(), pull.flatten()) for gap, pull in zip(gaps, pulls, strict=True)]
        return 0.5 * torch.stack(parts).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, None, *torch._foreach_mul(list(ctx.saved_tensors), grad)


def joined(
    one: Mapping[str, Tensor], at: Mapping[str, Tensor], other: Mapping[str, Tensor], to: Mapping[str, Tensor]
) -> tuple[Tensors, Tensors, float]:
    """Return the one quadratic that two add up to: its importance, its anchors, and the constant that is left over.

    F (w - a)^2 + G (w - b)^2 = (F + G) (w - c)^2 + F G / (F + G) (a - b)^2,   c = (F a + G b) / (F + G).

    Args:
        one: Importance F of the first, by name; empty for none.
        at: Its anchors a.
        other: Importance G of the second.
        to: Its anchors b; also the anchor where neither has any importance.
    """
    importance, anchors, rest = {}, {}, 0.0
    for name, g in other.items():
        f, b = one.get(name, torch.zeros_like(g)), to[name]
        a = at.get(name, b)
        importance[name] = f + g
        share = f / (f + g).clamp(min=torch.finfo(g.dtype).tiny)  # of the first in the anchor
        anchors[name] = b + share * (a - b)
        rest += 0.5 * (share * g * (a - b).square()).sum().item()
    return importance, anchors, rest


def product_gap(pairs: Sequence[Factors], anchors: Sequence[Factors] | None = None) -> Tensor:
    """Return sum ||B A - B* A*||_F^2 over `pairs` of (B, A) and `anchors` of (B*, A*), without making a product (out, in).

    With U = [B - B*, B*] and V = [A; A - A*],  U V = B A - B* A*  and  ||U V||_F^2 = <U^T U, V V^T>:  two Gram matrices of
    twice the rank, and near the anchor no large terms that cancel.

    Args:
        pairs: Factors up B (out, rank) and down A (rank, in); at least one pair.
        anchors: The same of each pair's anchor; B* A* = 0 if None.

    Cost: 4 x rank multiplications a weight, or 2 x rank without anchors; pairs of one shape go together.
    """
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, (up, down) in enumerate(pairs):
        groups[up.shape, down.shape].append(i)
    total = []
    for group in groups.values():
        left = torch.stack([wide(pairs[i][0]) for i in group])  # (pairs, out, rank)
        right = torch.stack([wide(pairs[i][1]) for i in group])  # (pairs, rank, in)
        if anchors is not None:
            up, down = (torch.stack([anchors[i][side] for i in group]) for side in (0, 1))
            left, right = torch.cat([left - up, up], -1), torch.cat([right, right - down], -2)
        total.append(((left.mT @ left) * (right @ right.mT)).sum())
    return torch.stack(total).sum()


def weighted_product_gap(
    pairs: Sequence[Factors], anchors: Sequence[Factors], sums: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Return 1/2 sum over pairs and entries of F_ij (B A - B* A*)_ij^2, with F_ij = u_i v_j / sum(u), without making (out, in).

    F is the matrix of rank one with row sums u and column sums v, which sum to the same number. With diag(sqrt(u)) and
    diag(sqrt(v / sum(u))) taken into the factors, the sum is that of `product_gap`.

    Args:
        pairs: Factors B (out, rank) and A (rank, in); at least one pair.
        anchors: The same of each pair's anchor.
        sums: Row sums u (out,) and column sums v (in,) of each pair's importance, not negative.

    Cost: as `product_gap`, and two passes over the factors.
    Source: the matrix of rank one nearest to one with these sums in Kullback-Leibler divergence, Shazeer & Stern, "Adafactor",
    ICML 2018, arXiv 1804.04235.
    """
    scaled, held = [], []
    for (up, down), (up0, down0), (u, v) in zip(pairs, anchors, sums, strict=True):
        left, right = u.sqrt()[:, None], (v / u.sum().clamp(min=torch.finfo(u.dtype).tiny)).sqrt()
        scaled.append((wide(up) * left, wide(down) * right))
        held.append((wide(up0) * left, wide(down0) * right))
    return 0.5 * product_gap(scaled, held)
