"""A fresh ledger, and short ways to fill it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from perdure.core.rows import Row
from perdure.data.spec import make_spec
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger

BASE = "b" * 64
CONFIG = {"model": "tiny", "revision": None, "dtype": "float32", "weights": "w" * 64, "base": BASE}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def ledger(root: Path) -> Ledger:
    return Ledger.create(root, {**CONFIG, "seed": 7})


@pytest.fixture
def put(ledger: Ledger) -> Callable[[float], str]:
    """Put an object that holds one number; returns its hash."""
    return lambda number: ledger.objects.put({"weight": torch.full((2, 3), number)})


@pytest.fixture
def draft(ledger: Ledger, put: Callable[[float], str]) -> Callable[..., Entry]:
    """Make a learn entry on head that writes an object holding `number` to the slot `skill`."""

    def make(number: float, parent: Entry | None = None, **fields: object) -> Entry:
        parent = parent or ledger.resolve("head")
        return Entry(parent=parent.id, kind="learn", base=BASE, **{"slots": {"skill": put(number)}, **fields})

    return make


@pytest.fixture
def rows() -> list[Row]:
    return [Row(prompt=f"question {i}?", completion=f"answer {i}", task="faq", source=f"f:{i}") for i in range(5)]


@pytest.fixture
def keep(ledger: Ledger) -> Callable[..., str]:
    """Keep a task with these rows as `learn` does; returns its version."""

    def kept(train: list[Row], test: list[Row] = ()) -> str:
        spec = make_spec({"name": "faq", "train": "faq.jsonl"}, "faq.jsonl")
        task = TaskData(spec, tuple(train), (), tuple(test), "prompt_completion")
        ledger.put_task("faq", task.version, task.to_json(), {"train": train, "test": test})
        return task.version

    return kept
