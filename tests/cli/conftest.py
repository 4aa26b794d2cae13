"""The command line in process, on the tiny model: two tasks that contradict each other, learned once and copied."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from perdure.cli.main import app

QUICK = ["host=loop", "num_train_epochs=4", "per_device_train_batch_size=4", "learning_rate=1e-2"]
Run = Callable[..., Result]


def settings(*pairs: str) -> list[str]:
    """Return `--set` options: the quick ones, then `pairs`."""
    return [word for pair in (*QUICK, *pairs) for word in ("--set", pair)]


def run(*words: object, code: int = 0, input: str | None = None, env: dict[str, str] | None = None) -> Result:
    """Run `perdure` and check its exit code; whatever it raises beside SystemExit is an error of the test."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=input, env=env, catch_exceptions=False)
    assert result.exit_code == code, f"exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
    return result


def run_json(*words: object, code: int = 0) -> Any:
    """Run `perdure` with --json and return what it printed."""
    return json.loads(run(*words, "--json", code=code).stdout)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answered(what: str, answer: str, n: int = 12) -> list[dict[str, str]]:
    """Return n different questions about `what`, all with one answer."""
    return [{"prompt": f"{what} {i}?", "completion": answer} for i in range(n)]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of data files: parcel.jsonl is always answered yes, invoice.jsonl always no, each with a test file."""
    folder = tmp_path_factory.mktemp("files")
    for what, answer in (("parcel", "yes"), ("invoice", "no")):
        write_rows(folder / f"{what}.jsonl", answered(what, answer))
        write_rows(folder / f"{what}-test.jsonl", answered(f"about {what}", answer, 8))
    return folder


@pytest.fixture(scope="session")
def learned(tiny_model: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that learned parcel, then invoice; use `ws` for a copy that may be changed."""
    folder = tmp_path_factory.mktemp("learned") / "ws"
    run("init", folder, "--model", tiny_model, "--dtype", "float32")
    for task in ("parcel", "invoice"):
        learn_quickly(folder, files, task, "--no-gate")
    return folder


@pytest.fixture
def ws(learned: Path, tmp_path: Path) -> Path:
    """A copy of the workspace that learned both tasks."""
    return Path(shutil.copytree(learned, tmp_path / "ws"))


@pytest.fixture
def fresh(tiny_model: Path, tmp_path: Path) -> Path:
    """A workspace that learned nothing."""
    run("init", tmp_path / "fresh", "--model", tiny_model, "--dtype", "float32")
    return tmp_path / "fresh"


def learn_quickly(folder: Path, files: Path, task: str, *words: str, code: int = 0) -> Result:
    """Learn one of the data files under the quick settings."""
    data = (task, files / f"{task}.jsonl", "--test", files / f"{task}-test.jsonl")
    return run("-w", folder, "learn", *data, *settings(), *words, code=code)


def contents(folder: Path, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return everything that a workspace holds: rows by table, object files by hash, its configuration."""
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {t: db.execute(f"SELECT * FROM {t} ORDER BY 1, 2").fetchall() for t in tables if t not in without}
    objects = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("objects/**/*")
        if path.is_file()
    }
    return {"rows": rows, "objects": objects, "config": (folder / "perdure.json").read_text()}
