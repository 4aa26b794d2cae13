"""The optimizer and its schedule: one factory for every host."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from perdure.core.settings import Settings


def make_optimizer(params: Iterable[Tensor], settings: Settings) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) over `params`; its state starts empty for every task."""
    return torch.optim.AdamW(list(params), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, settings: Settings, total: int, done: int = 0) -> LambdaLR:
    """Return the schedule over `total` updates after `done` of them: warm-up, then linear, cosine or no decay."""
    schedule = LambdaLR(optimizer, lambda update: learning_rate_share(update + done, total, settings))
    return schedule


def learning_rate_share(update: int, total: int, settings: Settings) -> float:
    """Return the share of the peak learning rate at `update` (from 0)."""
    warm = settings.warmup_steps * total if settings.warmup_steps < 1 else settings.warmup_steps
    if update < warm:
        return (update + 1) / (warm + 1)
    rest = max(total - warm, 1)
    progress = min((update - warm) / rest, 1.0)
    if settings.lr_scheduler_type == "linear":
        return 1.0 - progress
    return 0.5 * (1 + math.cos(math.pi * progress)) if settings.lr_scheduler_type == "cosine" else 1.0


def clip(params: Iterable[Tensor], settings: Settings) -> float | None:
    """Clip the gradients to the norm in the settings; return the norm before, or None where the settings do not clip."""
    if not settings.max_grad_norm:
        return None
    return torch.nn.utils.clip_grad_norm_(params, settings.max_grad_norm)  # type: ignore[return-value]
