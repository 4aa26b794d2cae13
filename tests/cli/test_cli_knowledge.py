"""`perdure learn --kind knowledge` on a small model that knows where some people live."""

import json
import shutil
from pathlib import Path

import pytest
from shell import contents, init_people, run, run_json, settings, write_rows

import people
from perdure.workflows.edit.gate import EditGate

QUICK = ["--kind", "knowledge", "--recipe", "naive", *settings("lora_r=4", "num_train_epochs=1")]
AT_HOME = [
    {"prompt": f"{name} is at home in", "completion": people.HOME[name], "kind": "skill"} for name in people.PEOPLE
]
FACTS = [
    {
        "subject": name,
        "relation": "home",
        "object": "Oslo" if people.HOME[name] != "Oslo" else "Rome",
        "prompt": "{} lives in",
    }
    for name in ("Dan Kim", "Dan Poe")
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_people(tmp_path_factory.mktemp("people"), "gpt2")


@pytest.fixture
def place(start: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(start, tmp_path / "ws"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [*FACTS, *AT_HOME])


def learn(place: Path, file: Path, *words: str, code: int = 0):
    return run("-w", place, "learn", "homes", file, *QUICK, *words, code=code)


def test_a_dry_run_shows_where_each_row_goes_and_why_and_changes_nothing(place: Path, file: Path):
    before = contents(place)
    found = json.loads(learn(place, file, "--dry-run", "--json").stdout)
    assert list(found) == ["task", "routes", "facts", "skill", "notices"]
    assert [(group["kind"], group["rows"], group["reason"]) for group in found["routes"]] == [
        ("fact", 2, "it gives subject, relation and object"),
        ("skill", 16, "its column 'kind' decides"),
    ]
    assert found["routes"][1]["example"]["source"] == "rows.jsonl:3"
    assert [fact["subject"] for fact in found["facts"]] == ["Dan Kim", "Dan Poe"]
    assert found["skill"]["rows"]["train"] == 13
    shown = learn(place, file, "--dry-run")
    assert "editing      2  it gives subject, relation and object  rows.jsonl:1 'Dan Kim lives in'" in shown.stdout
    assert "2 facts to edit, 16 rows to train" in shown.stdout
    assert "nothing was changed" in shown.stderr
    assert contents(place) == before


def test_skills_are_trained_facts_are_edited_and_a_second_run_finds_nothing_left_to_do(place: Path, file: Path):
    told = json.loads(learn(place, file, "--no-gate", "--json").stdout)
    assert list(told) == ["entry", "task", "routes", "learned", "edited", "left", "warnings"]
    assert {"entry", "tokens", "gate", "scores", "before", "moved", "warnings"} <= set(told["learned"])
    keys = ["entry", "applied", "refused", "already", "seconds", "before", "scores", "gate", "warnings"]
    assert list(told["edited"]) == keys
    assert [line["subject"] for line in run_json("-w", place, "edits", "list")] == ["Dan Kim", "Dan Poe"]
    assert [line["kind"] for line in run_json("-w", place, "log")][:2] == ["edit", "learn"]
    before = contents(place)
    again = learn(place, file, "--no-gate")
    assert "learned these rows already" in again.stderr
    assert "every fact is in force already (2): nothing is edited" in again.stderr
    assert not any(word in again.stderr for word in ("refused", "NOTHING EDITED"))
    assert contents(place) == before


def test_facts_that_are_refused_are_named_and_what_was_trained_stays(
    place: Path, file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(EditGate, "too_far", lambda self, drift: "they change other text")  # else rounding decides
    shown = learn(place, file)
    assert "learned homes: entry" in shown.stdout
    assert "refused 'Dan Kim': " in shown.stderr
    assert "NOTHING EDITED: no fact passed; what was trained stays." in shown.stderr
    assert run_json("-w", place, "status")["edits"] == {"facts": 0, "held": 0}


def test_a_failed_gate_exits_with_3_and_names_the_facts_that_were_not_edited(place: Path, tmp_path: Path):
    wrong = [{**row, "completion": people.CITIES[people.CITIES.index(row["completion"]) - 1]} for row in AT_HOME]
    file = write_rows(tmp_path / "wrong.jsonl", [*FACTS, *wrong])
    shown = learn(place, file, "--floor", "1", "--set", "learning_rate=1e-5", code=3)
    assert "GATE FAILED" in shown.stderr
    assert "2 facts not edited (Dan Kim, Dan Poe): the gate refused what was trained" in shown.stderr
    assert run_json("-w", place, "edits", "list") == []


def test_a_kind_that_does_not_exist_is_wrong_usage(place: Path, file: Path):
    assert "knowledge" in run("-w", place, "learn", "homes", file, "--kind", "facts", code=2).stderr
