"""Draws from a model's distribution, made reproducible by the uniform numbers that they are given."""

import torch
from torch import Tensor


def drawn_at(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return the class (tokens,) at which the cumulated probabilities first exceed `uniform`: a sample if that is uniform.

    Args:
        logits: (tokens, classes).
        uniform: (tokens,) in [0, 1), float64.
    """
    cumulated = logits.softmax(-1).cpu().cumsum(-1, dtype=torch.float64)  # float32 would lose the rare classes
    wanted = uniform * cumulated[:, -1]
    return torch.searchsorted(cumulated, wanted[:, None], right=True)[:, 0]


def raced(logits: Tensor, exponentials: Tensor) -> Tensor:
    """Return the class (tokens,) whose clock rings first, when class c rings after E_c / p_c: a sample if E is exponential.

    That is the Gumbel-max trick: argmax(log p - log E). Where rounding moves the logits a little, it seldom moves the draw.

    Args:
        logits: (tokens, classes), in any float type; log p up to a constant.
        exponentials: (tokens, classes), positive, float64.
    """
    return (logits.double().cpu() - exponentials.log()).argmax(-1)
