"""The optimizer and its schedule: one factory for every host."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from perdure.core.errors import BadSpec
from perdure.core.optimizers import PLAIN, PLAIN_SCHEDULES
from perdure.core.settings import Settings


@dataclass(frozen=True)
class Factories:
    """What makes the optimizer and its schedule; see `make_optimizer` and `make_schedule`."""

    optimizer: Callable[[Iterable[Tensor], Settings], torch.optim.Optimizer]
    schedule: Callable[[torch.optim.Optimizer, Settings, int, int], LambdaLR]


def make_optimizer(params: Iterable[Tensor], settings: Settings) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019) over `params`; its state starts empty for every task.

    Raises:
        BadSpec: The settings name another optimizer, which transformers makes.
    """
    if settings.optim != PLAIN or settings.optim_args:
        raise BadSpec(
            f"optim: {settings.optim} {settings.optim_args} needs transformers; use {PLAIN} here".replace("  ", " ")
        )
    return torch.optim.AdamW(list(params), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, settings: Settings, total: int, done: int = 0) -> LambdaLR:
    """Return the schedule over `total` updates of which `done` are past: warm-up, then linear, cosine or no decay.

    Raises:
        BadSpec: The settings name another schedule, which transformers makes.
    """
    if settings.lr_scheduler_type not in PLAIN_SCHEDULES or settings.lr_scheduler_kwargs:
        raise BadSpec(
            f"lr_scheduler_type: {settings.lr_scheduler_type} needs transformers; {', '.join(PLAIN_SCHEDULES)} do not"
        )
    schedule = LambdaLR(optimizer, lambda update: learning_rate_share(update + done, total, settings))
    return schedule


def learning_rate_share(update: int, total: int, settings: Settings) -> float:
    """Return the share of the peak learning rate at `update` (from 0)."""
    warm = settings.warmup_updates(total)
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


PLAIN_FACTORIES = Factories(make_optimizer, make_schedule)
