"""`perdure guard`: abilities are added from a file, listed, accepted and removed."""

import json
from pathlib import Path

import pytest
from shell import answered, learn_quickly, run, run_json, write_rows

from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.workflows.guards.attach import DEFAULTS


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A guard file of 12 rows, of which a learn scores 6."""
    write_rows(tmp_path / "sums.jsonl", answered("sum", "refund"))
    lines = ["ability_guard: sums", "test: sums.jsonl", "ability: maths", "max_new_tokens: 1"]
    (tmp_path / "sums.yaml").write_text("\n".join([*lines, "items: {learn: 6, quick: 8}"]))
    return tmp_path / "sums.yaml"


def test_a_guard_is_added_listed_accepted_and_removed(ws: Path, sums: Path) -> None:
    assert "no guards" in run("-w", ws, "guard", "list").stderr
    assert run_json("-w", ws, "guard", "list") == []
    added = run("-w", ws, "guard", "add", sums).stdout
    assert added == "added guard sums (maths): 12 items, 6 items at each learn\n"
    (listed,) = run_json("-w", ws, "guard", "list")
    assert {key: listed[key] for key in ("name", "ability", "items", "blind")} == {
        "name": "sums",
        "ability": "maths",
        "items": 12,
        "blind": None,
    }
    base = listed["reference"]
    assert "a guard that falls is a warning" in run("-w", ws, "guard", "list").stdout
    run("-w", ws, "guard", "enforce")
    assert json.loads((ws / "perdure.json").read_text())["guards"] == "enforce"
    assert "a guard that falls refuses the entry" in run("-w", ws, "guard", "list").stdout
    run("-w", ws, "guard", "warn")
    moved = run_json("-w", ws, "guard", "accept", "sums")
    assert moved["reference"] != base
    assert run_json("-w", ws, "guard", "accept", "sums", "--at", "base")["reference"] == base
    assert "in checkups alone" in run("-w", ws, "guard", "add", sums, "--name", "more", "--learn", "0").stdout
    assert run_json("-w", ws, "guard", "remove", "more")["name"] == "more"
    assert "removed guard sums" in run("-w", ws, "guard", "remove", "sums").stdout
    assert run("-w", ws, "verify").exit_code == 0


def test_what_cannot_be_added_is_an_error(ws: Path, sums: Path, tmp_path: Path) -> None:
    for words, said in (
        (["add", "nothing"], "no guard 'nothing' is shipped"),
        (["add", tmp_path / "none.yaml"], "none.yaml"),
        (["add", sums, "--name", "parcel"], "parcel is the name of a task"),
        (["remove", "sums"], "no guard 'sums'; there are none"),
        (["accept", "sums"], "no guard 'sums'"),
    ):
        result = run("-w", ws, "guard", *words, code=1)
        assert said in result.stderr
        assert result.stderr.startswith("error: ")
    sums.write_text(sums.read_text() + "\nabilty: maths\n")
    assert "unknown key 'abilty', did you mean ability?" in run("-w", ws, "guard", "add", sums, code=1).stderr


def test_a_learn_shows_guards_and_exits_with_3_where_they_are_enforced(ws: Path, files: Path, sums: Path) -> None:
    run("-w", ws, "rollback", "base")
    sums.write_text(sums.read_text().replace("max_new_tokens: 1", "max_new_tokens: 1\nscorer: python:own.py:always"))
    (sums.parent / "own.py").write_text("def always(answer, reference):\n    return float(answer != 'parcel')\n")
    assert "not trusted" in run("-w", ws, "guard", "add", sums, code=1).stderr
    run("-w", ws, "guard", "add", sums, "--trust-file", sums.parent / "own.py")
    result = learn_quickly(ws, files, "parcel")
    assert "guards: FAIL (only a warning, not part of the gate)" in result.stdout
    assert "perdure guard accept" in result.stderr
    run("-w", ws, "rollback", "base")
    result = learn_quickly(ws, files, "parcel", "--guards", "enforce", code=3)
    assert "GATE FAILED: " in result.stderr
    assert "sums" in result.stderr
    run("-w", ws, "discard")
    assert "guards: " not in learn_quickly(ws, files, "parcel", "--no-guards").stdout
    assert "sums" in run("-w", ws, "matrix").stdout
    for words in (["--no-guards", "--guards", "warn"], ["--no-gate", "--guards", "enforce"]):
        assert "--guards" in learn_quickly(ws, files, "parcel", *words, code=2).stderr


def test_a_new_workspace_has_the_guards_that_need_no_data_unless_none_are_wanted(
    tiny_model: Path, tmp_path: Path
) -> None:
    made = run("init", tmp_path / "a", "--model", tiny_model, "--guards", "default").stdout
    assert f"each learn scores {' and '.join(DEFAULTS)} too" in made
    assert [one["name"] for one in run_json("-w", tmp_path / "a", "guard", "list")] == list(DEFAULTS)
    run("init", tmp_path / "b", "--model", tiny_model, "--guards", "none")
    assert run_json("-w", tmp_path / "b", "guard", "list") == []
    heads = [run_json("-w", tmp_path / name, "status")["head"]["entry"] for name in "ab"]
    assert heads[0] == heads[1]
    with pytest.raises(BadInput, match="guards of a new workspace are 'some'"):
        Workspace.init(tmp_path / "c", str(tiny_model), guards="some")
    assert not (tmp_path / "c").exists()
