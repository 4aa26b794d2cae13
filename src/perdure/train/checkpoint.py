"""Checkpoints of a learn in progress: one safetensors file, so that a kill at any moment leaves the old one or the new one."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.core.errors import BrokenStore, Interrupted
from perdure.core.files import save_tensors, write_atomically
from perdure.core.plain_json import read_json
from perdure.train.gauge import Record
from perdure.train.learning import Learning


def save(path: Path, learning: Learning, optimizer: Any, done: int) -> None:
    """Write everything that update `done` (the next one) depends on: weights, optimizer, method state, memory position.

    Raises:
        PerdureError: The disk is full; the previous checkpoint is as it was.
    """
    tensors: dict[str, Tensor] = {f"param/{name}": value.detach() for name, value in learning.params.items()}
    for name, value in learning.params.items() if optimizer is not None else ():
        for key, part in optimizer.state.get(value, {}).items():
            tensors[f"adam/{name}/{key}"] = part
    for method, state in learning.state.items():
        tensors |= {f"state/{method}/{key}": value for key, value in state.items()}
    if learning.best:
        tensors |= {f"best/{name}": value for name, value in learning.best[1].items()}
    told = {
        "done": done,
        "rows": {name: len(pool.keys) for name, pool in learning.pools.items()},
        "served": {name: pool.served for name, pool in learning.pools.items()},
        "best": learning.best[0] if learning.best else None,
        "closed": learning.closed,
        "record": learning.record.to_json(),
        "spent": learning.clock.to_json(),
    }
    flat = {name: value.contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, lambda aside: save_tensors(flat, aside, {"perdure": json.dumps(told)}))


def load(path: Path, learning: Learning, optimizer: Any) -> int:
    """Restore what `save` wrote and return the update to go on with; 0 where there is no checkpoint.

    Raises:
        BrokenStore: The file is not a checkpoint of this learn.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            told = read_json((file.metadata() or {})["perdure"])
            # copies: what is mapped from a file is not aligned as fresh memory is, and a product then rounds otherwise
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise BrokenStore(f"checkpoint {path} cannot be read ({error}); delete it to start this learn again") from error
    if not _fits(learning, tensors, told):
        raise BrokenStore(f"checkpoint {path} was written by another learn; delete it to start this learn again")
    with torch.no_grad():
        for name, value in learning.params.items():
            value.copy_(tensors[f"param/{name}"])
            prefix = f"adam/{name}/"
            state = {key[len(prefix) :]: part for key, part in tensors.items() if key.startswith(prefix)}
            if state:
                optimizer.state[value] = {k: v if k == "step" else v.to(value.device) for k, v in state.items()}
    device = next(iter(learning.params.values())).device
    for method in learning.state:
        prefix = f"state/{method}/"
        begun, found = learning.state[method], {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        places = {key: begun[key].device if key in begun else device for key in found}  # as if it had not stopped
        learning.state[method] = {key: value.to(places[key]) for key, value in found.items()}
    if told["best"] is not None:
        learning.best = (told["best"], {k[5:]: v for k, v in tensors.items() if k.startswith("best/")})
    for name, served in told["served"].items():
        learning.pools[name].served = served
    learning.closed = told["closed"]
    learning.record = Record.from_json(told["record"])
    learning.clock.go_on(told.get("spent", {}))
    return told["done"]


def _fits(learning: Learning, tensors: dict[str, Tensor], told: dict[str, Any]) -> bool:
    """Whether a checkpoint has every parameter in its shape, and the counts of every pool's rows."""
    shapes = {f"param/{name}": value.shape for name, value in learning.params.items()}
    found = {name: value.shape for name, value in tensors.items() if name.startswith("param/")}
    return found == shapes and told["rows"] == {name: len(pool.keys) for name, pool in learning.pools.items()}


class Keeper:
    """Writes a checkpoint when `seconds` have passed since the last one, or when a stop is asked for.

    Args:
        path: The checkpoint file; None keeps none.
        learning: The learn in progress.
        seconds: Work that a kill may cost.
        stop: Returns the name of a signal that asks to stop, or None.
    """

    def __init__(self, path: Path | None, learning: Learning, seconds: float = 45.0, stop: Any = None):
        self.path, self.learning, self.seconds, self.stop = path, learning, seconds, stop
        self.last = self.began = time.monotonic()
        self.tokens = 0

    def resume(self, optimizer: Any) -> int:
        """Restore the checkpoint if there is one; return the update to start with."""
        start = load(self.path, self.learning, optimizer) if self.path else 0
        self.tokens, self.began = self.learning.record.tokens, time.monotonic()
        return start

    @property
    def speed(self) -> float:
        """Tokens a second since the first update of this process."""
        return (self.learning.record.tokens - self.tokens) / max(time.monotonic() - self.began, 1e-9)

    def after(self, update: int, optimizer: Any) -> None:
        """Call when an update is closed.

        Raises:
            Interrupted: A stop was asked for; the checkpoint is on disk.
        """
        signal = self.stop() if self.stop else None
        due = time.monotonic() - self.last > self.seconds and update + 1 < self.learning.total
        if self.path and (signal or due):
            save(self.path, self.learning, optimizer, update + 1)
            self.last = time.monotonic()
        if signal:
            raise Interrupted(f"stopped by {signal} after update {update + 1}; run the same command again to go on")
