"""What happens when something was lost: exit code 3, a candidate aside, evidence that anybody can check."""

import json
from pathlib import Path

import pytest
from shell import contents, learn_quickly, run, run_json


@pytest.fixture
def refused(ws: Path, files: Path) -> Path:
    """A workspace on parcel whose invoice was refused by its gate."""
    run("-w", ws, "rollback", "head~1")
    head = run_json("-w", ws, "status")["head"]["entry"]
    result = learn_quickly(ws, files, "invoice", "--recipe", "naive", "--set", "num_train_epochs=8", code=3)
    assert "gate: FAIL" in result.stdout
    assert "parcel lost more than the tolerance" in result.stdout
    assert "GATE FAILED" in result.stderr
    assert "accept" in result.stderr
    assert "discard" in result.stderr
    assert run_json("-w", ws, "status")["head"]["entry"] == head
    return ws


def test_a_refused_candidate_waits_and_is_accepted(refused: Path, files: Path):
    status = run("-w", refused, "status")
    assert "candidate" in status.stderr
    assert "perdure accept" in status.stderr
    candidate = run_json("-w", refused, "show", "candidate")
    assert candidate["refs"] == []
    assert candidate["gate"]["verdict"] == "fail"
    assert run_json("-w", refused, "eval", "--at", "candidate")["tasks"]["parcel"]["score"] < 0.5
    assert "waiting" in learn_quickly(refused, files, "invoice", code=1).stderr
    assert candidate["entry"][:12] in run("-w", refused, "accept").stdout
    assert run_json("-w", refused, "status")["head"]["entry"] == candidate["entry"]
    log = run_json("-w", refused, "log")
    assert "accepted before; nothing is changed" in run("-w", refused, "accept").stdout
    assert run_json("-w", refused, "accept") == {
        "entry": candidate["entry"],
        "task": "invoice",
        "accepted": True,
        "already": True,
    }
    assert run_json("-w", refused, "log") == log
    assert run("-w", refused, "gate", code=3).stdout.startswith("gate: FAIL")
    run("-w", refused, "rollback", "head~1")
    assert "no candidate" in run("-w", refused, "accept", code=1).stderr


def test_a_refused_candidate_is_discarded_and_its_objects_freed(refused: Path):
    before = contents(refused)
    assert run_json("-w", refused, "gc")["removed"] == 0  # a candidate's objects are named
    found = run_json("-w", refused, "discard")
    assert found["accepted"] is False
    assert "no candidate waits; nothing is changed" in run("-w", refused, "discard").stdout
    assert run_json("-w", refused, "discard") == {"entry": None, "task": None, "accepted": False, "already": True}
    assert found["task"] == "invoice"
    assert run_json("-w", refused, "gc")["removed"] >= 1
    after = contents(refused)
    assert after["rows"]["candidate"] == []
    assert after["rows"]["entries"] == before["rows"]["entries"]
    assert run_json("-w", refused, "verify")["ok"]


def test_evidence_is_judged_again_without_a_workspace(refused: Path, tmp_path: Path, monkeypatch):
    file = tmp_path / "evidence.json"
    shown = run("-w", refused, "gate", "--save", file, code=3)
    monkeypatch.chdir(tmp_path)
    assert run("gate", "--evidence", file, code=3).stdout == shown.stdout
    assert run_json("gate", "--evidence", file, code=3)["verdict"] == "fail"
    evidence = json.loads(file.read_text())
    evidence["verdict"]["verdict"] = "pass"
    file.write_text(json.dumps(evidence))
    assert "states another verdict" in run("gate", "--evidence", file, code=1).stderr
    file.write_text("{}")
    assert "no gate evidence" in run("gate", "--evidence", file, code=1).stderr


def test_an_inconclusive_gate_moves_head_loudly_and_fails_when_strict(ws: Path, files: Path):
    run("-w", ws, "rollback", "head~1")
    before = contents(ws)
    words = ("--recipe", "naive", "--set", "learning_rate=1e-9")  # nothing changes, and 8 test rows prove nothing
    strict = learn_quickly(ws, files, "invoice", *words, "--strict", code=3)
    assert "strict: this counts as fail" in strict.stdout
    assert contents(ws)["rows"]["refs"] == before["rows"]["refs"]
    run("-w", ws, "discard")
    loud = learn_quickly(ws, files, "invoice", *words)
    assert "INCONCLUSIVE: " in loud.stderr
    assert "To decide, learn the task again with more test rows" in loud.stderr
    printed = loud.stdout + loud.stderr  # the reason once, with what to do
    assert printed.count("more test items would decide") == printed.count("the test items do not tell") == 1
    assert "gate: INCONCLUSIVE (" in loud.stdout
    assert run("-w", ws, "status").stdout.count("more test items would decide") == 1
    assert run_json("-w", ws, "status")["head"]["task"] == "invoice"


def test_a_floor_is_asked_of_the_new_task(ws: Path, files: Path):
    run("-w", ws, "rollback", "base")
    words = ("--set", "learning_rate=1e-9", "--floor", "0.5", "--json")
    told = json.loads(learn_quickly(ws, files, "parcel", *words, code=3).stdout)
    assert told["gate"]["verdict"] == "fail"
    assert "floor" in told["gate"]["reason"]


def test_a_gate_that_was_off_says_so(ws: Path, tmp_path: Path):
    assert "gate: OFF" in run("-w", ws, "gate").stdout
    assert "switched off" in run("-w", ws, "gate", "--save", tmp_path / "e.json", code=1).stderr
    assert "been through no gate" in run("-w", ws, "gate", "--at", "base", code=1).stderr
    assert not (tmp_path / "e.json").exists()
