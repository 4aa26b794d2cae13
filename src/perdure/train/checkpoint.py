"""Checkpoints of a learn in progress: one safetensors file, so that a kill at any moment leaves the old or the new checkpoint."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.core.clock import Clock
from perdure.core.errors import BrokenStore, Interrupted
from perdure.core.files import save_tensors, write_atomically
from perdure.core.plain_json import read_json
from perdure.ledger.records import TrainingRecord
from perdure.train.effects import TrainingLog
from perdure.train.learner import Learner
from perdure.train.task import Best


def save(path: Path, learner: Learner, clock: Clock, optimizer: Any, done: int) -> None:
    """Write everything that update `done` (the next one) depends on: weights, optimizer, method state, memory position.

    Raises:
        PerdureError: The disk is full; the previous checkpoint is not changed.
    """
    tensors: dict[str, Tensor] = {f"param/{name}": value.detach() for name, value in learner.params.items()}
    numbers: dict[str, dict[str, Any]] = {}  # of optimizers that count their steps in Python
    for name, value in learner.params.items() if optimizer is not None else ():
        for key, part in optimizer.state.get(value, {}).items():
            if isinstance(part, Tensor):
                tensors[f"adam/{name}/{key}"] = part
            else:
                numbers.setdefault(name, {})[key] = part
    for method, state in learner.state.items():
        tensors |= {f"state/{method}/{key}": value for key, value in state.items()}
    if learner.best:
        tensors |= {f"best/{name}": value for name, value in learner.best.weights.items()}
        tensors |= {f"best_state/{key}": value for key, value in learner.best.state.items()}
    stored = {
        "done": done,
        "optimizer": numbers,
        "rows": {name: len(pool.keys) for name, pool in learner.pools.items()},
        "served": {name: pool.served for name, pool in learner.pools.items()},
        "best": {"loss": learner.best.loss, "update": learner.best.update} if learner.best else None,
        "closed": learner.settled,
        "record": learner.record.frozen.to_json(),
        "spent": clock.to_json(),
    }
    flat = {name: value.contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, lambda aside: save_tensors(flat, aside, {"perdure": json.dumps(stored)}))


def load(path: Path, learner: Learner, clock: Clock, optimizer: Any) -> int:
    """Restore what `save` wrote and return the next update; 0 where there is no checkpoint.

    Raises:
        BrokenStore: The file is not a checkpoint of this learn.
    """
    if not path.exists():
        return 0
    learner.begin()  # values computed from the weights before the task are in no checkpoint
    try:
        with safe_open(path, "pt") as file:
            stored = read_json((file.metadata() or {})["perdure"])
            record = TrainingRecord.from_json(stored["record"])
            # copies: tensors mapped from a file are aligned differently from fresh memory, and products then round differently
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise BrokenStore(f"checkpoint {path} cannot be read ({error}); delete it to start this learn again") from error
    if not _fits(learner, tensors, stored):
        raise BrokenStore(
            f"checkpoint {path} was written by another learn, or by an older perdure; delete it to start this learn again"
        )
    with torch.no_grad():
        for name, value in learner.params.items():
            value.copy_(tensors[f"param/{name}"])
            prefix = f"adam/{name}/"
            state = {key[len(prefix) :]: part for key, part in tensors.items() if key.startswith(prefix)}
            there = {k: v if k == "step" else v.to(value.device) for k, v in state.items()}
            there |= stored.get("optimizer", {}).get(name, {})
            if there:
                optimizer.state[value] = there
    device = next(iter(learner.params.values())).device
    for method in learner.state:
        prefix = f"state/{method}/"
        begun, saved = learner.state[method], {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        places = {key: begun[key].device if key in begun else device for key in saved}  # as if it had not stopped
        learner.state[method] = {key: value.to(places[key]) for key, value in saved.items()}
    if stored["best"] is not None:
        weights, state = (
            {key.removeprefix(of): value for key, value in tensors.items() if key.startswith(of)}
            for of in ("best/", "best_state/")
        )
        learner.best = Best(**stored["best"], weights=weights, state={key: v.to(device) for key, v in state.items()})
    for name, served in stored["served"].items():
        learner.pools[name].served = served
    learner.settled = stored["closed"]
    learner.record = TrainingLog.of(record)
    clock.go_on(stored.get("spent", {}))
    return stored["done"]


def _fits(learner: Learner, tensors: dict[str, Tensor], stored: dict[str, Any]) -> bool:
    """Whether a checkpoint has every parameter in its shape, the counts of every pool's rows, and a best update, if any."""
    shapes = {f"param/{name}": value.shape for name, value in learner.params.items()}
    saved = {name: value.shape for name, value in tensors.items() if name.startswith("param/")}
    best = stored["best"]
    if best is not None and set(best) != {"loss", "update"}:  # of a version that counted epochs
        return False
    return saved == shapes and stored["rows"] == {name: len(pool.keys) for name, pool in learner.pools.items()}


class Keeper:
    """Writes a checkpoint when `seconds` have passed since the last one, or when a signal asks to stop.

    Args:
        path: The checkpoint file; None writes none.
        learner: The learn in progress.
        seconds: Largest loss of work by a kill.
        stop: Returns the name of a signal that asks to stop, or None.
        clock: Counts the seconds of the learn, over all processes; None makes a new one.
    """

    def __init__(
        self,
        path: Path | None,
        learner: Learner,
        seconds: float = 45.0,
        stop: Callable[[], str | None] | None = None,
        clock: Clock | None = None,
    ):
        self.path, self.learner, self.seconds, self.stop = path, learner, seconds, stop
        self.clock = clock or Clock()
        self.last = self.began = time.monotonic()
        self.tokens = 0

    def resume(self, optimizer: Any) -> int:
        """Restore the checkpoint if there is one; return the update to start with."""
        start = load(self.path, self.learner, self.clock, optimizer) if self.path else 0
        self.tokens, self.began = self.learner.record.tokens, time.monotonic()
        return start

    @property
    def speed(self) -> float:
        """Tokens per second since the first update of this process."""
        return (self.learner.record.tokens - self.tokens) / max(time.monotonic() - self.began, 1e-9)

    def save(self, optimizer: Any, done: int) -> None:
        """Write the checkpoint before update `done`; without the optimizer where no update is left."""
        if self.path:
            save(self.path, self.learner, self.clock, optimizer, done)

    def after(self, update: int, optimizer: Any) -> None:
        """Write a checkpoint if one is due. Call when an update is finished.

        Raises:
            Interrupted: A signal asked to stop; the checkpoint is on disk.
        """
        signal = self.stop() if self.stop else None
        due = time.monotonic() - self.last > self.seconds and update + 1 < self.learner.total
        if self.path and (signal or due):
            self.save(optimizer, update + 1)
            self.last = time.monotonic()
        if signal:
            raise Interrupted(f"stopped by {signal} after update {update + 1}; run the same command again to go on")
