"""`perdure task rename`: an alias under which people see a task and every command takes it; no id changes."""

import json
from pathlib import Path

import pytest
from shell import QUICK, contents, learn_quickly, run, run_json

from perdure import Workspace
from perdure.core.errors import BadInput, NotFound


def test_an_alias_is_shown_and_taken_by_every_command_and_no_id_or_row_changes(
    ws: Path, files: Path, tmp_path: Path
) -> None:
    before = contents(ws)
    assert "no id changed, and both names work" in run("-w", ws, "task", "rename", "parcel", "post").stdout
    assert contents(ws)["rows"] == before["rows"]
    assert contents(ws)["objects"] == before["objects"]
    assert json.loads((ws / "perdure.json").read_text())["aliases"] == {"parcel": "post"}
    page = tmp_path / "page.html"
    run("-w", ws, "report", "-o", page)
    exported = tmp_path / "adapter"
    run("-w", ws, "export", exported, "--dtype", "float32")
    texts = {
        "status": run("-w", ws, "status").stdout,
        "matrix": run("-w", ws, "matrix").stdout,
        "log": run("-w", ws, "log").stdout,
        "show": run("-w", ws, "show", "head~1").stdout,
        "diff": run("-w", ws, "diff", "head~1", "head").stdout,
        "eval": run("-w", ws, "eval").stdout,
        "memory": run("-w", ws, "memory", "list").stdout,
        "memory stats": run("-w", ws, "memory", "stats").stdout,
        "report": page.read_text(encoding="utf-8"),
        "card": (exported / "README.md").read_text(encoding="utf-8").partition("## How it was made")[0],
    }
    for name, text in texts.items():
        assert "post" in text, name
        # the rows of the task have its own name in their text
        assert name in ("memory", "report") or "parcel" not in text.replace(str(ws), ""), name
    page_of_post = texts["report"]
    assert ">post<" in page_of_post
    assert ">parcel<" not in page_of_post
    for command in (["eval", "post"], ["memory", "list", "--task", "post"], ["predict", "parcel 1?", "--task", "post"]):
        own = [word.replace("post", "parcel") for word in command]
        assert run_json("-w", ws, *command) == run_json("-w", ws, *own)
    status = run_json("-w", ws, "status")
    assert status["aliases"] == {"parcel": "post"}
    assert list(status["tasks"]) == ["parcel", "invoice"]
    assert run_json("-w", ws, "matrix")["aliases"] == {"parcel": "post"}
    learned = run(
        "-w", ws, "learn", "post", files / "parcel.yaml", *(w for s in QUICK for w in ("--set", s)), "--no-gate"
    )
    assert "learned post" in learned.stdout
    assert "more data for a known task" not in learned.stderr
    assert list(run_json("-w", ws, "status")["tasks"]) == ["parcel", "invoice"]
    removed = run("-w", ws, "task", "remove", "post")
    assert "removed task post" in removed.stdout
    assert list(run_json("-w", ws, "status")["tasks"]) == ["invoice"]


def test_a_gate_names_a_guarded_task_by_its_alias_and_takes_it_as_guard(ws: Path, files: Path) -> None:
    run("-w", ws, "rollback", "head~1")
    run("-w", ws, "task", "rename", "parcel", "post")
    refused = learn_quickly(ws, files, "invoice", "--guard", "post", "--set", "learning_rate=0.2", code=3)
    assert "post lost more than the tolerance; the worst is post" in " ".join((refused.stdout + refused.stderr).split())
    assert "parcel" not in refused.stdout
    assert "scoring post" in refused.stderr
    shown = run("-w", ws, "gate", code=3).stdout
    assert "fail          post" in shown
    assert "parcel" not in shown
    assert "the worst is post" in run("-w", ws, "status").stderr
    assert "the worst is post" in run("-w", ws, "show", "candidate").stdout
    assert [task["task"] for task in run_json("-w", ws, "gate", code=3)["tasks"]] == ["parcel"]
    wrong = learn_quickly(ws, files, "invoice", "--guard", "letters", code=1)
    assert "candidate is waiting" in wrong.stderr
    run("-w", ws, "discard")
    assert "it knows ['post']" in learn_quickly(ws, files, "invoice", "--guard", "letters", code=1).stderr


def test_an_alias_is_removed_by_the_own_name_and_names_that_mean_something_else_are_refused(ws: Path) -> None:
    workspace = Workspace.open(ws)
    for name, why in {
        "invoice": "is a task",
        "head": "is a ref",
        "candidate": "is a ref",
        "a/b": "no task can be called",
        "": "no task can be called",
    }.items():
        with pytest.raises(BadInput, match=why):
            workspace.task_rename("parcel", name)
    with pytest.raises(NotFound, match="known are invoice, parcel"):
        workspace.task_rename("letters", "post")
    assert workspace.task_rename("parcel", "post").to_json() == {
        "task": "parcel",
        "before": "parcel",
        "now": "post",
        "already": False,
    }
    assert workspace.task_rename("post", "post").already
    with pytest.raises(BadInput, match="post is the alias of task parcel"):
        workspace.task_rename("invoice", "post")
    with pytest.raises(BadInput, match="parcel is a task, shown as post"):
        workspace.task_rename("invoice", "parcel")
    assert workspace.task_rename("post", "mail").before == "post"
    assert "known are invoice, mail" in run("-w", ws, "task", "rename", "letters", "x", code=1).stderr
    assert "under its own name again" in run("-w", ws, "task", "rename", "mail", "parcel").stdout
    assert json.loads((ws / "perdure.json").read_text())["aliases"] == {}
    assert "aliases" not in run_json("-w", ws, "status")


def test_an_alias_goes_into_an_archive_and_a_damaged_one_is_refused(ws: Path, tmp_path: Path) -> None:
    run("-w", ws, "task", "rename", "parcel", "post")
    run("-w", ws, "workspace", "pack", tmp_path / "all.tar")
    run("workspace", "unpack", tmp_path / "all.tar", tmp_path / "copy")
    assert "post" in run("-w", tmp_path / "copy", "status").stdout
    config = json.loads((ws / "perdure.json").read_text())
    (ws / "perdure.json").write_text(json.dumps({**config, "aliases": {"parcel": 3}}))
    assert "has a value of aliases that no perdure wrote" in run("-w", ws, "status", code=1).stderr
