"""Gradients as values: of one loss alone, and summed over micro-batches."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from perdure.core.seams import Grads
from perdure.maths.precision import wide

Backward = Callable[..., None]  # (loss, retain_graph=...): adds the loss's gradients to the parameters'


def grad_of(value: Tensor) -> Tensor:
    """Return the gradient accumulated so far, zeros where there is none."""
    return torch.zeros_like(value) if value.grad is None else value.grad


def gradients_of(loss: Tensor, params: Mapping[str, Tensor], backward: Backward) -> Grads:
    """Return the gradients of `loss` alone; gradients that were accumulated before, and the graph, do not change."""
    before = {name: value.grad for name, value in params.items()}
    for value in params.values():
        value.grad = None
    if loss.requires_grad:
        backward(loss, retain_graph=True)
    grads = {name: grad_of(value) for name, value in params.items()}
    for name, value in params.items():
        value.grad = before[name]
    return grads


def added(known: Grads | None, more: Grads) -> Grads:
    """Return the sum of two gradients, in float32 or wider; `more` where there is no first gradient yet."""
    return more if known is None else {name: wide(known[name]) + value for name, value in more.items()}
