"""Running `perdure` in process, and looking at what it left on disk."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

import people
from perdure.cli.main import app

QUICK = ["host=loop", "num_train_epochs=4", "per_device_train_batch_size=4", "learning_rate=0.1"]


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


def init_people(folder: Path, kind: str, *words: object) -> Path:
    """Make a workspace in `folder` for a small model that knows where some people live."""
    for part in people.make(kind):
        part.save_pretrained(folder / "model")
    run("init", folder / "ws", "--model", folder / "model", "--dtype", "float32", *words)
    return folder / "ws"


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answered(what: str, answer: str, n: int = 12) -> list[dict[str, str]]:
    """Return n different questions about `what`, all with one answer."""
    return [{"prompt": f"{what} {i}?", "completion": answer} for i in range(n)]


def learn_quickly(folder: Path, files: Path, task: str, *words: str, code: int = 0) -> Result:
    """Learn one of the task files under the quick settings."""
    return run("-w", folder, "learn", task, files / f"{task}.yaml", *settings(), *words, code=code)


def contents(folder: Path, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return everything that a workspace holds: rows by table, object files by hash, its configuration."""
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {t: db.execute(f"SELECT * FROM {t} ORDER BY rowid").fetchall() for t in tables if t not in without}
    objects = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("objects/**/*")
        if path.is_file()
    }
    return {"rows": rows, "objects": objects, "config": (folder / "perdure.json").read_text()}
