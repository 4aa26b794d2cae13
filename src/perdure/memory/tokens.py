"""Memory of a trainer that has no ledger: rows as tokens, since their text may never have been there, all in one file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.core.canonical import content_hash
from perdure.core.errors import BrokenStore
from perdure.core.files import save_tensors, write_atomically
from perdure.core.plain_json import read_json
from perdure.core.seams import State
from perdure.data.encode import Encoded
from perdure.memory.admission import admitted, shrink
from perdure.memory.columns import Columns, pack, unpack
from perdure.memory.pool import Pool

FORMAT = 1
COLUMN = "column/"  # prefix of the tensors that `pack` made
STATE = "state/"  # prefix of what methods keep


@dataclass(frozen=True)
class Kept:
    """One row of a task, as tokens.

    Args:
        row: Its tokens.
        task: Name of its task.
        label: Its class, where the task has classes.
        stage: Number of the task in the stream, from 1.
        score: What admission gave it.
    """

    row: Encoded
    task: str
    label: str | None = None
    stage: int = 0
    score: float = 0.0

    @cached_property
    def key(self) -> str:
        """Identity: the same tokens in the same task with the same label."""
        return content_hash([self.task, self.label, self.row.ids, self.row.trained])


@dataclass(frozen=True)
class TokenMemory:
    """Rows of the tasks learned so far, their columns, the tasks' names in the order they were learned, and what methods keep."""

    rows: Sequence[Kept] = ()
    columns: Columns = field(default_factory=dict)
    tasks: Sequence[str] = ()
    states: Mapping[str, State] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """Keys of the rows, in order."""
        return [kept.key for kept in self.rows]

    def pools(self) -> dict[str, Pool]:
        """Return the rows as the pool that replay draws from."""
        rows = self.rows
        return {
            "replay": Pool(
                self.keys, [k.row for k in rows], [k.label for k in rows], [k.task for k in rows], self.columns
            )
        }

    def after(self, task: str, fresh: Sequence[Kept] = (), recipe: Any = None, *key: object) -> "TokenMemory":
        """Return the memory after a task: its best rows beside the older ones, within the budget of `recipe`.

        Args:
            task: Its name.
            fresh: Its rows, scored.
            recipe: Its settings bound the memory; None, or one that remembers nothing, admits nothing.
            *key: Key of the choice of rows that give way, such as the seed.
        """
        rows = [*self.rows]
        if recipe is not None and recipe.remembers:
            scores = [kept.score for kept in fresh]
            best = [fresh[i] for i in admitted(fresh, scores, lambda kept: kept.label, recipe.settings)]
            known = set(self.keys)
            rows += {kept.key: kept for kept in best if kept.key not in known}.values()
            rows = shrink(rows, lambda kept: (kept.task, kept.label), recipe.settings.memory_size, *key)
        return TokenMemory(rows, self.columns, [*self.tasks, task], self.states)


def save(path: Path, memory: TokenMemory) -> None:
    """Write the memory as one safetensors file, its facts as JSON in the header; the old file stays until the new is whole.

    Raises:
        PerdureError: The disk is full; what was at `path` is as it was.
    """
    tensors: dict[str, Tensor] = {
        "ids": torch.tensor([i for kept in memory.rows for i in kept.row.ids], dtype=torch.int32),
        "trained": torch.tensor([t for kept in memory.rows for t in kept.row.trained], dtype=torch.bool),
        "length": torch.tensor([len(kept.row) for kept in memory.rows], dtype=torch.int32),
        **{COLUMN + name: value.contiguous() for name, value in pack(memory.columns, memory.keys).items()},
        **{f"{STATE}{m}/{key}": v.cpu().contiguous() for m, state in memory.states.items() for key, v in state.items()},
    }
    facts = [{"task": k.task, "label": k.label, "stage": k.stage, "score": k.score} for k in memory.rows]
    told = {"perdure": json.dumps({"format": FORMAT, "tasks": list(memory.tasks), "rows": facts})}
    write_atomically(path, lambda aside: save_tensors(tensors, aside, told))


def load(path: Path) -> TokenMemory:
    """Return the memory that `save` wrote; an empty one where there is no file.

    Raises:
        BrokenStore: The file is no such memory, or of a newer format.
    """
    if not path.exists():
        return TokenMemory()
    try:
        with safe_open(path, "pt") as file:
            told = read_json((file.metadata() or {})["perdure"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if told["format"] > FORMAT:
            raise BrokenStore(f"{path} has format {told['format']}, this perdure knows up to {FORMAT}; upgrade perdure")
        lengths = tensors["length"].tolist()
        ids, trained = tensors["ids"].split(lengths), tensors["trained"].split(lengths)
        rows = [
            Kept(Encoded(tuple(i.tolist()), tuple(t.tolist())), **facts)
            for i, t, facts in zip(ids, trained, told["rows"], strict=True)
        ]
        packed = {name.removeprefix(COLUMN): value for name, value in tensors.items() if name.startswith(COLUMN)}
        states: dict[str, State] = {}
        for name, value in tensors.items():
            if name.startswith(STATE):
                method, _, key = name.removeprefix(STATE).partition("/")
                states.setdefault(method, {})[key] = value
        return TokenMemory(rows, unpack(packed, [kept.key for kept in rows]), told["tasks"], states)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise BrokenStore(
            f"memory {path} cannot be read ({error}); restore it, or start with another folder"
        ) from error
