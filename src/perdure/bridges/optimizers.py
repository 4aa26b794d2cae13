"""Every optimizer and schedule of transformers, by the names of its training arguments and from its own factories."""

from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from math import ceil
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.training_args import OptimizerNames

from perdure.core.errors import BadSpec, Conflict
from perdure.core.optimizers import PLAIN, PLAIN_SCHEDULES
from perdure.core.settings import Settings
from perdure.train import optimizer as plain
from perdure.train.optimizer import Factories

TRIED = (
    64,
    128,
)  # shape of the parameter that an optimizer is tried on: bitsandbytes has 8 bits for the state of such a size


def make_optimizer(params: Iterable[Tensor], settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name, over `params`, all with the same weight decay.

    Raises:
        BadSpec: Its package is not installed, or its arguments are wrong.
    """
    if settings.optim == PLAIN and not settings.optim_args:
        return plain.make_optimizer(params, settings)
    with_args = f" with optim_args {settings.optim_args!r}" if settings.optim_args else ""
    try:
        kind, options = _kind_and_options(settings)
        unread = [name for name in _names(settings.optim_args) if not _reads(settings, name)]
        if unread:
            raise ValueError(f"it does not read {', '.join(unread)}")
        return kind([{"params": list(params), "weight_decay": settings.weight_decay}], **options)
    except (ImportError, ValueError, TypeError) as error:
        raise BadSpec(f"optim: {settings.optim}{with_args} cannot be used here: {error}") from error


def _kind_and_options(settings: Settings) -> tuple[Any, dict[str, Any]]:
    """Return the class of an optimizer and its arguments, as Trainer finds them."""
    usual = {
        one.name: one.default_factory()
        if one.default is MISSING and one.default_factory is not MISSING
        else one.default
        for one in fields(TrainingArguments)
    }
    chosen = {"optim": OptimizerNames(settings.optim), "optim_args": settings.optim_args or None}
    args = SimpleNamespace(**usual | chosen | {"learning_rate": settings.learning_rate})
    return Trainer.get_optimizer_cls_and_kwargs(args)  # type: ignore[arg-type]  # it reads attributes alone


def _names(optim_args: str) -> list[str]:
    return [part.partition("=")[0].strip() for part in optim_args.split(",")] if optim_args else []


def _reads(settings: Settings, name: str) -> bool:
    """Return whether an optimizer reads an argument: Trainer passes over the ones that it does not know."""
    if name == "weight_decay":  # which is a setting of its own
        return False
    without, with_it = (settings.model_copy(update={"optim_args": args}) for args in ("", f"{name}=0.123"))
    try:
        return bool(_kind_and_options(without) != _kind_and_options(with_it))
    except (ValueError, AttributeError):  # it reads another type
        return True


def make_schedule(optimizer: torch.optim.Optimizer, settings: Settings, total: int, done: int = 0) -> LambdaLR:
    """Return the schedule over `total` updates of which `done` are past.

    Raises:
        BadSpec: `lr_scheduler_kwargs` do not fit the schedule.
    """
    if settings.lr_scheduler_type in PLAIN_SCHEDULES and not settings.lr_scheduler_kwargs:
        return plain.make_schedule(optimizer, settings, total, done)
    share = _share(settings, total)
    return LambdaLR(optimizer, lambda update: share(update + done))


def check(settings: Settings, device: torch.device) -> None:
    """Try the optimizer on a small parameter and make the schedule, before anything is trained.

    Raises:
        BadSpec: A package is missing, an argument is wrong, or the optimizer does not run on this device.
        Conflict: No checkpoint can store the optimizer's state.
    """
    if settings.optim != PLAIN or settings.optim_args:
        param = torch.nn.Parameter(torch.ones(TRIED, device=device))
        optimizer = make_optimizer([param], settings)
        param.grad = torch.ones_like(param)
        try:
            optimizer.step()
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise BadSpec(f"optim: {settings.optim} does not run on {device}: {error}") from error
        odd = [value for value in optimizer.state[param].values() if not _storable(value)]
        if odd:
            raise Conflict(
                f"optim: {settings.optim} has state of the type {type(odd[0]).__name__}, which no checkpoint stores; choose "
                "another optimizer, such as adamw_8bit"
            )
    make_schedule(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], settings.learning_rate), settings, 100)


def _share(settings: Settings, total: int) -> Callable[[int], float]:
    """Return the share of the peak learning rate at each update, as the schedule of transformers has it."""
    stand_in = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], settings.learning_rate)
    warm, more = ceil(settings.warmup_updates(total)), dict(settings.lr_scheduler_kwargs)
    try:
        if settings.lr_scheduler_type.startswith("constant") and more:
            raise TypeError(f"it takes none, got {', '.join(more)}")
        schedule: Any = get_scheduler(settings.lr_scheduler_type, stand_in, warm, total, more)
        share: Callable[[int], float] = schedule.lr_lambdas[0]
        share(total)
    except (TypeError, ValueError) as error:
        raise BadSpec(
            f"lr_scheduler_type: {settings.lr_scheduler_type} and its lr_scheduler_kwargs: {error}"
        ) from error
    return share


def _storable(value: object) -> bool:
    return value is None or type(value) in (Tensor, int, float, bool)


FACTORIES = Factories(make_optimizer, make_schedule)
