"""`perdure bench` at the command line: lists of values, what it writes, and what it refuses."""

import json
import random
from pathlib import Path

import pytest
import yaml
from shell import run, run_json, write_rows

from perdure.cli.bench import Lists, bench
from perdure.cli.main import app


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of two tasks on points in the plane, beside its data."""
    folder, draw = tmp_path_factory.mktemp("suite"), random.Random(0)
    rows = [
        {"features": [x + draw.gauss(0, 0.3), y], "label": label, "split": split}
        for label, x, y in (("a", 1, 1), ("b", -1, 1), ("c", 1, -1), ("d", -1, -1))
        for split in ("train", "test")
        for _ in range(8)
    ]
    write_rows(folder / "points.jsonl", rows)
    spec = {
        "kind": "features",
        "model": "mlp:8",
        "settings": {"num_train_epochs": 1},
        "sources": {"points.jsonl": "drawn by a test"},
        "defaults": {"file": "points.jsonl", "train": {"split": "train"}, "test": {"split": "test"}},
        "tasks": [{"name": "ab", "labels": ["a", "b"]}, {"name": "cd", "labels": ["c", "d"]}],
    }
    (folder / "corners.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder / "corners.yaml"


def parsed(*words: str) -> dict:
    """Return the values that a command line gives to the command's parameters."""
    import typer

    command = typer.main.get_command(app).commands["bench"]  # type: ignore[attr-defined]
    assert isinstance(command, Lists)
    return command.make_context("bench", list(words)).params


def test_an_option_takes_several_values_at_once_or_one_at_a_time():
    wanted = parsed(
        "clinc3", "--recipes", "naive", "r=replay:methods.replay.mix=0.5", "--seeds", "0", "1", "2", "--jobs", "2"
    )
    again = parsed("--seeds", "0", "--seeds", "1", "--recipes=naive", "--seeds", "2", "--jobs", "2", "clinc3")
    assert list(wanted["recipes"]) == ["naive", "r=replay:methods.replay.mix=0.5"]
    assert list(wanted["seeds"]) == list(again["seeds"]) == [0, 1, 2]
    assert (wanted["suite"], wanted["jobs"]) == (again["suite"], again["jobs"]) == ("clinc3", 2)
    assert list(again["recipes"]) == ["naive"]
    assert bench.__doc__


def test_a_bench_writes_results_and_tables_and_is_not_repeated(suite: Path, tmp_path: Path):
    words = ("bench", suite, "--data", suite.parent, "--out", tmp_path)
    first = run(*words, "--recipes", "naive", "--seeds", "0")
    assert "1 run, 0 finished before, 0 failed" in first.stderr
    assert first.stdout.startswith("| arm | seeds | ACC |")
    assert first.stdout == (tmp_path / "corners" / "table.md").read_text(encoding="utf-8")
    assert "<h1>corners</h1>" in (tmp_path / "corners" / "table.html").read_text(encoding="utf-8")
    result = (tmp_path / "corners" / "naive-0.json").read_bytes()
    again = run_json(*words, "--recipes", "naive", "--seeds", "0")
    assert [line["arm"] for line in again["arms"]] == ["naive"]
    assert (tmp_path / "corners" / "naive-0.json").read_bytes() == result
    for more in ([], ["--table"]):
        wrong = run(*words, "--recipes", "naive", "--against", "naiv", *more, code=1)
        assert "--against: no arm 'naiv'; did you mean 'naive'?" in wrong.stderr


def test_a_failed_run_is_listed_and_the_command_fails(suite: Path, tmp_path: Path):
    words = (
        "bench",
        suite,
        "--data",
        suite.parent,
        "--out",
        tmp_path,
        "--recipes",
        "naive:learning_rate=100,weight_decay=100,num_train_epochs=20",
    )
    found = run(*words, code=1)
    assert "| naive:learning_rate=100,weight_decay=100,num_train_epochs=20 | 0 | Diverged:" in found.stdout
    assert "failed: naive:learning_rate=100,weight_decay=100,num_train_epochs=20 seed 0: Diverged:" in found.stderr
    assert run(*words[:6], "--table").stdout == found.stdout  # a table alone is no failure


def test_missing_data_is_told_before_anything_runs(suite: Path, tmp_path: Path):
    found = run("bench", suite, "--data", tmp_path, "--out", tmp_path / "out", code=1)
    assert "drawn by a test" in found.stderr
    assert "--data DIR or PERDURE_DATA" in found.stderr
    assert not (tmp_path / "out").exists()
    told = run("bench", "clinc5", "--out", tmp_path / "out", code=1, env={"PERDURE_DATA": str(tmp_path)}).stderr
    assert "https://github.com/clinc/oos-eval" in told
    assert str(tmp_path / "intents" / "clinc150.jsonl.gz") in told.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["clinc33"], 1, "did you mean 'clinc3'"),
        (["{suite}", "--recipes", "naiv"], 1, "did you mean 'naive'"),
        (["{suite}", "--recipes", "naive:lora_rr=1"], 1, "did you mean 'lora_r'"),
        (["{suite}", "--recipes", "naive", "naive"], 1, "LABEL=RECIPE"),
        (["{suite}", "--seeds", "-1"], 2, "--seeds"),
        ([], 2, "SUITE"),
    ],
)
def test_a_wrong_word_is_refused_with_a_hint(suite: Path, tmp_path: Path, words: list[str], code: int, hint: str):
    given = [word.replace("{suite}", str(suite)) for word in words]
    found = run("bench", *given, "--data", suite.parent, "--out", tmp_path / "out", code=code)
    assert hint in " ".join(found.stderr.replace("│", "").split())
    assert not (tmp_path / "out").exists()


def test_json_is_the_comparison(suite: Path, tmp_path: Path):
    (tmp_path / "corners").mkdir()
    (tmp_path / "corners" / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "corners" / "other-0.json").write_text(json.dumps({"suite_hash": "another"}), encoding="utf-8")
    found = run("bench", suite, "--out", tmp_path, "--table", "--json")
    nothing = {"against": "naive", "arms": [], "computed": [], "failed": [], "left_out": 0, "watched": []}
    assert json.loads(found.stdout) == nothing
    assert "2 results" in found.stderr
