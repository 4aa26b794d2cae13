"""A learn that is stopped, however rudely, leaves the workspace as it was, and goes on to the same final bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shell import contents, learn_quickly, run, run_json, settings

from perdure.core.errors import Interrupted
from perdure.workspace.facade import Workspace

LONG = settings("num_train_epochs=200")  # 600 updates: some seconds


def start(words: list[object]) -> subprocess.Popen:
    """Start a real `perdure` and return it when it has begun to train."""
    command = [sys.executable, "-m", "perdure.cli.main", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("learning "):
            return process
    raise AssertionError("".join(told))


@pytest.mark.timeout(600)
def test_a_learn_stopped_by_ctrl_c_kill_and_term_ends_in_the_same_bits(tiny_model: Path, files: Path, tmp_path: Path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        run("init", folder, "--model", tiny_model, "--dtype", "float32")
    data = ["learn", "parcel", files / "parcel.yaml", *LONG]
    run("-w", whole, *data)
    before = contents(broken, without=["scores"])
    reached = 0
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
        process = start(["-w", broken, *data])
        time.sleep(0.2)
        process.send_signal(number)
        _, talk = process.communicate(timeout=300)
        assert contents(broken, without=["scores"]) == before
        if number is signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130
            assert f"stopped by {number.name} after update" in talk
            update = int(talk.split("after update ")[1].split(";")[0])
            assert reached < update < 600
            reached = update
        assert "stopped half-way" in run("-w", broken, "status").stderr
    run("-w", broken, *data)
    one, other = (contents(folder) for folder in (whole, broken))
    assert run_json("-w", broken, "log")[0]["entry"] == run_json("-w", whole, "log")[0]["entry"]
    assert sorted(one["objects"].values()) == sorted(other["objects"].values())
    assert "stopped half-way" not in run("-w", broken, "status").stderr


def test_ctrl_c_while_scoring_stops_too_and_the_training_is_not_lost_twice(ws: Path, files: Path):
    run("-w", ws, "rollback", "head~1")
    before = contents(ws, without=["scores"])
    seen: list[str] = []

    def tick(what: str, done: int, total: int) -> None:
        if what == "scoring parcel" and "scoring parcel" not in seen:  # the first after training
            signal.raise_signal(signal.SIGINT)
        seen.append(what)

    settings = {"host": "loop", "num_train_epochs": 1}
    with pytest.raises(Interrupted, match="SIGINT while scoring"):
        Workspace.open(ws).learn("invoice", files / "invoice.yaml", tick=tick, overrides=settings, gate=None)
    assert any(what.startswith("learning invoice") for what in seen)
    left = contents(ws, without=["scores", "rows", "tasks", "task_rows", "manifests"])
    assert left["rows"] == {name: rows for name, rows in before["rows"].items() if name in left["rows"]}
    assert run_json("-w", ws, "gc")["removed"] >= 1
    assert run_json("-w", ws, "verify")["ok"]
    learn_quickly(ws, files, "invoice", "--no-gate")


def test_ctrl_c_before_the_training_exits_with_130(ws: Path, files: Path, monkeypatch: pytest.MonkeyPatch):
    from perdure.data import load

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "read_sources", stop)
    before = contents(ws)
    assert run("-w", ws, "learn", "new", files / "parcel.jsonl", code=130).stderr == "stopped\n"
    assert contents(ws) == before
