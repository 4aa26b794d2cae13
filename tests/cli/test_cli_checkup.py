"""`perdure checkup` prints one screen, or JSON, and writes it to a file."""

import json
from pathlib import Path

import pytest
from shell import answered, run, run_json, write_rows


@pytest.fixture
def guarded(ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a guard of an ability and a drift guard, and no shipped one."""
    monkeypatch.setattr("perdure.workflows.checkup.choose.guard_names", lambda: [])
    write_rows(tmp_path / "sums.jsonl", answered("sum", "refund"))
    for name, ability, more in (("sums", "maths", "chance: 0.5"), ("habits", "drift", "scorer: same")):
        lines = [f"ability_guard: {name}", "test: sums.jsonl", f"ability: {ability}", "max_new_tokens: 2", more]
        (tmp_path / f"{name}.yaml").write_text("\n".join([*lines, "items: {learn: 0, quick: 6}"]))
        run("-w", ws, "guard", "add", tmp_path / f"{name}.yaml")
    return ws


def test_one_screen(guarded: Path) -> None:
    result = run("-w", guarded, "checkup")
    assert "scoring 24 rows of 2 guards, those of the reference included; no row was timed yet" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "checkup of head against base, budget quick"
    assert lines[1].startswith("gate: ")
    starts = [line[:11].split() for line in lines if line[:1].isdigit()]
    assert starts == [["1", "tasks"], ["2", "abilities"], ["3", "facts"], ["4", "drift"]]
    assert any("sums" in line and "blind: 0.0 is no better than chance" in line for line in lines)
    assert "3 facts      not measured" in lines
    assert any(line.split()[:2] == ["kl", "0.00"] or "nats a token" in line for line in lines)
    assert lines[-1].startswith("cost: ")
    assert "; --budget standard would take about" in lines[-1]
    run(
        "-w",
        guarded,
        "learn",
        "sums_too",
        write_rows(guarded.parent / "too.jsonl", answered("sum", "parcel")),
        "--no-gate",
    )
    run("-w", guarded, "guard", "accept", "habits")
    moved = run("-w", guarded, "checkup").stdout.splitlines()
    assert moved[0] == "checkup of head against each guard's reference, budget quick"
    head = run_json("-w", guarded, "checkup", "--only", "habits")
    assert head["guards"]["habits"]["reference"].startswith(head["against"])
    assert "embedding" not in head["instruction_drift"]


def test_json_to_stdout_and_to_a_file(guarded: Path, tmp_path: Path) -> None:
    file = tmp_path / "checkup.json"
    printed = run_json("-w", guarded, "checkup", "--only", "drift", "--save", file)
    assert json.loads(file.read_text()) == printed
    assert printed["tasks"] == {}
    assert printed["instruction_drift"]["same"]["n"] == 6
    run("-w", guarded, "checkup", "--only", "drift", "--save", file)  # its own file may be written again
    (tmp_path / "mine.txt").write_text("notes")
    refused = run("-w", guarded, "checkup", "--only", "drift", "--save", tmp_path / "mine.txt", code=1)
    assert "mine.txt" in refused.stderr
    assert (tmp_path / "mine.txt").read_text() == "notes"


def test_strict_gives_exit_code_3_where_the_verdict_is_not_pass(guarded: Path) -> None:
    result = run_json("-w", guarded, "checkup", "--only", "sums")
    assert result["gate"]["verdict"] == "inconclusive"  # the one guard is blind
    assert run("-w", guarded, "checkup", "--only", "sums", "--strict", code=3)
    assert "budget is 'much'" in run("-w", guarded, "checkup", "--budget", "much", code=1).stderr
