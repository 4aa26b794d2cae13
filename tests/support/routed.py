"""Workspaces of tasks that a router tells apart, on a tiny model."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from perdure import Workspace
from perdure.core.keyed import keyed

FAST = {"max_steps": 4, "per_device_train_batch_size": 8, "host": "loop", "lora_r": 2, "learning_rate": 0.01}
WORDS = {
    "refund": ("money back for", "cash returned on"),
    "parcel": ("where is the box", "the courier lost it"),
    "tariff": ("price of a call", "cost per minute"),
}


FILLERS = ("please", "today", "again", "for me", "at home", "by noon", "in town", "now", "maybe", "then")


def rows(task: str, first: int, n: int) -> list[dict[str, str]]:
    """Return rows number `first` and the `n` - 1 behind it of a task: one of its two phrases, and four of the fillers."""
    orders = list(itertools.permutations(FILLERS, 4))
    mixed = [orders[k] for k in keyed(task).permutation(len(orders))[first : first + n]]
    texts = [" ".join((WORDS[task][i % 2], *words)) for i, words in enumerate(mixed)]
    return [{"text": text, "label": f"{task} {i % 2}"} for i, text in enumerate(texts)]


def learn(ws: Workspace, tmp_path: Path, task: str, recipe="isolated"):  # type: ignore[no-untyped-def]
    """Learn a task of 60 train rows, 12 of which a router holds out, and 8 test rows: two tasks have enough for a limit."""
    data = [{**row, "split": "train"} for row in rows(task, 0, 60)] + [
        {**row, "split": "test"} for row in rows(task, 100, 8)
    ]
    path = tmp_path / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, data)), encoding="utf-8")
    return ws.learn(task, path, recipe=recipe, overrides=FAST, gate=None)


def made(tiny_model: Path, tmp_path: Path, name: str, tasks: Iterable[str], recipe="isolated") -> Workspace:  # type: ignore[no-untyped-def]
    """Return a new workspace that has learned some tasks, by name."""
    ws = Workspace.init(tmp_path / name, str(tiny_model), dtype="float32", guards="none")
    for task in tasks:
        learn(ws, tmp_path, task, recipe)
    return ws
