"""`perdure trace` on a small model that knows where some people live."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from shell import contents, init_people, run, run_json, write_rows

import people

QUICK = ["--samples", "2"]
FILES = {
    "prompt": {"trace.json", "block.png", "mlp.png", "attention.png"},
    "average": {"trace.json", "average-block.png", "average-mlp.png", "average-attention.png", "average-curves.png"},
    "sweep": {"sweep.json", "sweep.png"},
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_people(tmp_path_factory.mktemp("people"), "llama", "--seed", "5")


@pytest.fixture
def place(start: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(start, tmp_path / "ws"))


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    rows = [
        {"subject": name, "prompt": "{} lives in", "target": "Mars", "ground_truth": people.HOME[name]}
        for name in ("Ann Lee", "Bob Ash")
    ]
    wrong = {"subject": "Dan Kim", "prompt": "{} lives in", "target": "Rome", "ground_truth": "Mars"}
    return write_rows(tmp_path / "facts.jsonl", [*rows, wrong])


def test_a_prompt_is_summed_up_and_written_as_pictures_and_json(place: Path, tmp_path: Path) -> None:
    told = run("-w", place, "trace", "Ann Lee lives in", "--subject", "Ann Lee", *QUICK, "-o", tmp_path / "out")
    assert f"'Ann Lee lives in' goes on with '{people.HOME['Ann Lee']}'" in told.stdout
    for word in ("block", "mlp", "attention", "last subject", "'Lee'"):
        assert word in told.stdout
    assert "tracing" in told.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES["prompt"]
    found = json.loads((tmp_path / "out" / "trace.json").read_text())
    again = run_json("-w", place, "trace", "{} lives in", "--subject", "Ann Lee", *QUICK)
    assert again == found
    assert found["seed"] == 5  # the workspace's
    assert list(found["kinds"]) == ["block", "mlp", "attention"]
    restored = found["kinds"]["block"]["restored"]
    assert (len(restored), len(restored[0])) == (len(found["tokens"]), 4)
    assert restored[-1][-1] == pytest.approx(found["clean"], abs=1e-4)
    one = run_json(
        "-w", place, "trace", "{} lives in", "--subject", "Ann Lee", "--kind", "mlp", "--window", "2", *QUICK
    )
    assert list(one["kinds"]) == ["mlp"]
    assert one["kinds"]["mlp"]["window"] == 2


def test_facts_are_averaged_and_what_is_kept_stands_in_the_report_but_not_in_show(
    place: Path, facts: Path, tmp_path: Path
) -> None:
    told = run("-w", place, "trace", "--facts", facts, *QUICK, "-o", tmp_path / "out")
    assert "2 of 3 facts traced; of 1 the model does not say the ground truth" in told.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES["average"]
    found = json.loads((tmp_path / "out" / "trace.json").read_text())
    assert (found["n"], found["facts"]) == (2, 3)
    assert "traces" not in run_json("-w", place, "show")
    run("-w", place, "report", "-o", tmp_path / "report.html")
    assert "Average over 2 facts" in (tmp_path / "report.html").read_text()


def test_a_sweep_names_the_best_layer_and_records_nothing(place: Path, facts: Path, tmp_path: Path) -> None:
    before = contents(place, without=["notes"])
    out = tmp_path / "out"
    told = run("-w", place, "trace", "--sweep", "--layers", "0", "1", "--facts", facts, "-o", out)
    assert "best layer by harmonic mean:" in told.stdout or "no layer can be named:" in told.stdout  # rounding decides
    assert "unedited" in told.stdout
    assert {path.name for path in out.iterdir()} == FILES["sweep"]
    found = json.loads((out / "sweep.json").read_text())
    assert [line["layer"] for line in found["layers"]] == [0, 1]
    assert found["tracing"] is None
    assert contents(place, without=["notes"]) == before


BAD = {
    "nothing": (["trace"], 1, "a trace needs PROMPT and --subject"),
    "no subject": (["trace", "Ann Lee lives in"], 1, "a trace needs PROMPT and --subject"),
    "both": (["trace", "Ann Lee lives in", "--facts", "f.jsonl"], 2, "not both"),
    "other subject": (["trace", "Ann Lee lives in", "--subject", "Bob Fox"], 1, "does not name the subject 'Bob Fox'"),
    "no file": (["trace", "--facts", "nowhere.jsonl"], 1, "nowhere.jsonl"),
    "kind": (["trace", "{} lives in", "--subject", "Ann Lee", "--kind", "value"], 2, "'value' is not one of"),
    "window": (["trace", "{} is", "--subject", "Ann Lee", "--kind", "block", "--window", "2"], 1, "a window is"),
    "layers": (["trace", "{} is", "--subject", "Ann Lee", "--layers", "2"], 2, "give --sweep too"),
    "sweep of nothing": (["trace", "{} is", "--subject", "Ann Lee", "--sweep"], 2, "give it with --facts"),
    "sweep without tracing": (["trace", "--sweep", "--facts", "f.jsonl", "--noise", "2"], 2, "with --kind too"),
    "layer": (["trace", "--sweep", "--facts", "FACTS", "--layers", "1", "3"], 1, "choose from 0 to 2"),
    "ref": (["trace", "{} is", "--subject", "Ann Lee", "--at", "nowhere"], 1, "no ref or entry 'nowhere'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_said_and_changes_nothing(place: Path, facts: Path, name: str) -> None:
    words, code, message = BAD[name]
    before = contents(place)
    result = run("-w", place, *(facts if word == "FACTS" else word for word in words), code=code)
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert contents(place) == before


def test_no_fact_left_is_an_error_that_leaves_no_folder(place: Path, tmp_path: Path) -> None:
    wrong = {"subject": "Dan Kim", "prompt": "{} lives in", "target": "Rome", "ground_truth": "Mars"}
    file = write_rows(tmp_path / "wrong.jsonl", [wrong])
    result = run("-w", place, "trace", "--facts", file, "-o", tmp_path / "out", code=1)
    assert "none of 1 facts is left to trace" in result.stderr
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_without_matplotlib_pictures_are_refused_before_any_work_and_json_is_not(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["-w", place, "trace", "{} lives in", "--subject", "Ann Lee", "--kind", "block", *QUICK]
    result = run(*words, "-o", tmp_path / "out", code=1)
    assert "pip install 'perdure[plots]'" in result.stderr
    assert "tracing" not in result.stderr
    assert not (tmp_path / "out").exists()
    assert run_json(*words)["answer"] == people.HOME["Ann Lee"]


def test_a_folder_with_something_in_it_is_never_overwritten(place: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = run("-w", place, "trace", "{} is", "--subject", "Ann Lee", "-o", tmp_path / "out", code=1)
    assert "not an empty folder" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
