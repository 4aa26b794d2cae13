"""Perturbations of input embeddings, a row at a time, so that what else is in the batch makes no difference."""

import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.maths.precision import wide


def row_directions(gradient: Tensor) -> Tensor:
    """Return each row of `gradient` (rows, ..., hidden) at length 1, whatever its scale; a row of zeros stays zeros."""
    flat = wide(gradient).flatten(1)
    largest = flat.abs().amax(1, keepdim=True)  # squares of tiny gradients would underflow
    flat = F.normalize(torch.where(largest > 0, flat / largest, 0.0), dim=1)
    return flat.view_as(gradient).to(gradient.dtype)


def mean_lengths(embeddings: Tensor, gradient: Tensor) -> Tensor:
    """Return the mean length of each row's embeddings that its loss depends on, shaped to multiply rows (rows, 1, ...).

    Args:
        embeddings: (rows, ..., hidden).
        gradient: Of the row's loss in them, same shape; zero at padding and at what comes after the last label.
    """
    tokens, up = (wide(value).reshape(len(value), -1, value.shape[-1]) for value in (embeddings, gradient))
    counted = (up != 0).any(-1)  # (rows, positions)
    mean = (tokens.norm(dim=-1) * counted).sum(1) / counted.sum(1).clamp(min=1)
    return mean.view(-1, *[1] * (embeddings.dim() - 1)).to(embeddings.dtype)


def climb(moved: Tensor, gradient: Tensor, radius: Tensor, stride: float) -> Tensor:
    """Return a perturbation one step up the gradient, cut back to the ball of `radius` around 0.

    moved + stride x radius x direction, times min(1, radius / its length), row by row.

    Args:
        moved: The perturbation so far (rows, ..., hidden).
        gradient: Of each row's loss at it, same shape.
        radius: Longest perturbation of each row, (rows, 1, ...).
        stride: Length of the step, in radii.

    Source: Madry et al. 2018, arXiv 1706.06083, section 2.1, in the L2 norm; from 0 with stride >= 1 it is the fast gradient
    step of Miyato et al. 2017, arXiv 1605.07725, eq. 5. Deviation: none.
    """
    further = moved + stride * radius * row_directions(gradient)
    length = wide(further).flatten(1).norm(dim=1).clamp(min=1e-30).view_as(radius)
    return further * (radius / length.to(radius.dtype)).clamp(max=1.0)
