"""The memory of a trainer without a ledger, in one file. Rows are stored as tokens, since the trainer may not have their text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.core.canonical import content_hash
from perdure.core.errors import BrokenStore
from perdure.core.files import save_tensors, write_atomically
from perdure.core.plain_json import read_json
from perdure.core.seams import State
from perdure.data.encode import Encoded
from perdure.memory.columns import pack, unpack
from perdure.memory.memory import Memory
from perdure.memory.pool import Pool

FORMAT = 1
COLUMN = "column/"  # prefix of the tensors from `pack`
STATE = "state/"  # prefix of the methods' states


@dataclass(frozen=True)
class TokenRow:
    """One row of a task, as tokens.

    Args:
        row: Its tokens.
        task: Name of its task.
        label: Its class, where the task has classes.
        stage: Number of the task in the stream, from 1.
        score: Its score when it was admitted.
    """

    row: Encoded
    task: str
    label: str | None = None
    stage: int = 0
    score: float = 0.0
    pool: ClassVar[str] = "replay"

    @cached_property
    def key(self) -> str:
        """Identity: the same tokens in the same task with the same label."""
        return content_hash([self.task, self.label, self.row.ids, self.row.trained])


@dataclass(frozen=True)
class TokenMemory(Memory[TokenRow]):
    """The memory of a trainer: rows as tokens, the tasks' names in the order they were learned, and the methods' states."""

    tasks: Sequence[str] = ()
    states: Mapping[str, State] = field(default_factory=dict)

    def token_pools(self) -> dict[str, Pool]:
        """Return the rows as the pool that replay draws from."""
        return self.pools(lambda rows: [row.row for row in rows])

    def _entering(self, best: Sequence[TokenRow]) -> list[TokenRow]:
        """Return the best rows that are not in memory, each once, since a dataset may repeat a row."""
        return list({row.key: row for row in super()._entering(best)}.values())


def save(path: Path, memory: TokenMemory) -> None:
    """Write the memory as one safetensors file with metadata in the header; the old file stays until it is complete.

    Raises:
        PerdureError: The disk is full; `path` is not changed.
    """
    tensors: dict[str, Tensor] = {
        "ids": torch.tensor([i for row in memory.rows for i in row.row.ids], dtype=torch.int32),
        "trained": torch.tensor([t for row in memory.rows for t in row.row.trained], dtype=torch.bool),
        "length": torch.tensor([len(row.row) for row in memory.rows], dtype=torch.int32),
        **{COLUMN + name: value.contiguous() for name, value in pack(memory.columns, memory.keys).items()},
        **{f"{STATE}{m}/{key}": v.cpu().contiguous() for m, state in memory.states.items() for key, v in state.items()},
    }
    facts = [{"task": k.task, "label": k.label, "stage": k.stage, "score": k.score} for k in memory.rows]
    header = {"perdure": json.dumps({"format": FORMAT, "tasks": list(memory.tasks), "rows": facts})}
    write_atomically(path, lambda aside: save_tensors(tensors, aside, header))


def load(path: Path) -> TokenMemory:
    """Return the memory that `save` wrote; empty where there is no file.

    Raises:
        BrokenStore: The file is no such memory, or of a newer format.
    """
    if not path.exists():
        return TokenMemory()
    try:
        with safe_open(path, "pt") as file:
            header = read_json((file.metadata() or {})["perdure"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if header["format"] > FORMAT:
            raise BrokenStore(
                f"{path} has format {header['format']}, this perdure knows up to {FORMAT}; upgrade perdure"
            )
        lengths = tensors["length"].tolist()
        ids, trained = tensors["ids"].split(lengths), tensors["trained"].split(lengths)
        rows = [
            TokenRow(Encoded(tuple(i.tolist()), tuple(t.tolist())), **facts)
            for i, t, facts in zip(ids, trained, header["rows"], strict=True)
        ]
        packed = {name.removeprefix(COLUMN): value for name, value in tensors.items() if name.startswith(COLUMN)}
        states: dict[str, State] = {}
        for name, value in tensors.items():
            if name.startswith(STATE):
                method, _, key = name.removeprefix(STATE).partition("/")
                states.setdefault(method, {})[key] = value
        return TokenMemory(rows, unpack(packed, [row.key for row in rows]), header["tasks"], states)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise BrokenStore(
            f"memory {path} cannot be read ({error}); restore it, or start with another folder"
        ) from error
