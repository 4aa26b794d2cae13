"""`perdure edit`, `edits` and `revert` on a small model that knows where some people live."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shell import contents, init_people, run, run_json, write_rows

import people
from edited import deaf_to
from perdure.editing import moments

LOOSE = [
    "--paraphrase",
    "0",
    "--neighbours",
    "1",
    "--perplexity",
    "10",
]  # a model of forty words has room for little more
KEYS = [
    "fact",
    "entry",
    "subject",
    "prompt",
    "target",
    "efficacy",
    "paraphrase",
    "neighbourhood",
    "generation",
    "lost_in",
]


def elsewhere(name: str) -> str:
    return next(city for city in people.CITIES if city != people.HOME[name])


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one fact edited in."""
    ws = init_people(tmp_path_factory.mktemp("people"), "gpt2")
    told = run_json("-w", ws, "edit", "Dan Kim", "{} lives in", elsewhere("Dan Kim"), *LOOSE, "-m", "he moved")
    assert list(told) == ["entry", "applied", "refused", "already", "seconds", "before", "scores", "gate", "warnings"]
    assert (told["scores"], told["gate"], told["warnings"]) == ({}, None, [])  # no task is known
    assert (len(told["applied"]), told["refused"]) == (1, [])
    return ws


@pytest.fixture
def place(start: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(start, tmp_path / "ws"))


def test_a_fact_is_listed_shown_verified_and_taken_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = run_json("-w", place, "edits", "list")
    assert list(line) == KEYS
    assert (line["subject"], line["prompt"], line["target"]) == ("Dan Kim", "Dan Kim lives in", elsewhere("Dan Kim"))
    assert (line["efficacy"], line["paraphrase"], line["neighbourhood"]) == (True, None, None)
    shown = run_json("edits", "-w", place, "show", line["fact"][:8])
    assert (shown["method"], shown["dropped"], shown["entry"]) == ("emmet", False, line["entry"])
    found = run_json("-w", place, "edits", "verify")
    assert (found["held"], found["lost"]) == (1, [])
    assert "Dan Kim lives in" in run("-w", place, "edits", "list").stdout
    monkeypatch.setenv("PERDURE_AUTHOR", "Ann")
    assert run_json("-w", place, "show")["message"] == "he moved"
    told = run_json("-w", place, "revert", line["fact"][:8])
    assert [fact["subject"] for fact in told["reverted"]] == ["Dan Kim"]
    assert run_json("-w", place, "edits", "list") == []
    assert "no fact is in force" in run("-w", place, "edits", "list").stderr
    assert run_json("-w", place, "edits", "list", "--at", "head~1") == [line]
    newest = run_json("-w", place, "log")[0]
    assert (newest["author"], newest["message"]) == ("Ann", None)
    run("-w", place, "rollback", "head~1")
    assert "edit Dan Kim" in run("-w", place, "log").stdout


def test_looking_names_the_edits_and_loads_no_torch(place: Path) -> None:
    script = (
        "import sys\nfrom perdure.cli.main import app\ntry:\n    app(sys.argv[1:])\n"
        "finally:\n    assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'heavy'\n"
    )
    expected = {
        "log": "edit Dan Kim",
        "status": "1 fact in force, 1 said when last verified",
        "show": "what     edit Dan Kim",
        "edits list": "Dan Kim lives in",
    }
    for words, text in expected.items():
        done = subprocess.run(
            [sys.executable, "-c", script, *words.split(), "-w", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert text in done.stdout
    assert run_json("-w", place, "status")["edits"] == {"facts": 1, "held": 1}
    assert run_json("-w", place, "show")["edit"]["refused"] == []


def test_of_a_file_of_facts_those_that_pass_are_applied(place: Path, tmp_path: Path) -> None:
    new = {"subject": "Dan Bly", "prompt": "{} lives in", "target": elsewhere("Dan Bly"), "reason": "moved"}
    again = {"subject": "Dan Kim", "prompt": "Dan Kim lives in", "target": elsewhere("Dan Kim")}
    file = write_rows(tmp_path / "facts.jsonl", [new, again])
    told = run_json("-w", place, "edit", "--facts", file, *LOOSE)
    assert len(told["applied"]) == 1
    (first, second) = run_json("-w", place, "edits", "list")
    assert (told["refused"], told["already"]) == ([], [first["fact"]])
    assert [line["subject"] for line in run_json("-w", place, "edits", "list")] == ["Dan Kim", "Dan Bly"]
    before = contents(place)
    result = run("-w", place, "edit", "--facts", file, "--json")
    assert json.loads(result.stdout) | {"seconds": 0} == {
        "entry": None,
        "applied": [],
        "refused": [],
        "already": [second["fact"], first["fact"]],
        "seconds": 0,
        "before": {},
        "scores": {},
        "gate": None,
        "warnings": [],
    }
    assert f"in force already: {second['fact'][:8]}" in result.stderr
    assert contents(place) == before
    bad = {
        "subject": "Ann Eco",
        "prompt": "{} lives in",
        "target": "a" + " a" * 60,
    }  # longer than the model's positions
    refused = run_json("-w", place, "edit", "--facts", write_rows(tmp_path / "more.jsonl", [again, bad]), code=3)
    assert ([fact["subject"] for fact in refused["refused"]], refused["already"]) == (["Ann Eco"], [first["fact"]])
    first_told = run_json("-w", place, "revert", second["fact"])
    again_told = run_json("-w", place, "revert", second["fact"])
    assert (again_told["entry"], again_told["already"]) == (first_told["entry"], [second["fact"]])
    assert "taken out before, in entry" in run("-w", place, "revert", second["fact"]).stdout


def test_ctrl_c_in_the_statistics_ends_in_one_line_and_the_same_command_goes_on(
    place: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("PERDURE_CACHE", str(tmp_path / "cache"))
    before, real = contents(place), moments._generate
    asked = ["-w", place, "edit", "Dan Bly", "{} lives in", elsewhere("Dan Bly"), *LOOSE]

    def stopped(site, texts, positions, *more):
        if positions.start > 1:
            raise KeyboardInterrupt
        return real(site, texts, positions, *more)

    monkeypatch.setattr(moments, "_generate", stopped)
    result = run(*asked, code=130)
    assert "measuring the model once for edits: its text: " in result.stderr
    assert "Traceback" not in result.stderr
    assert contents(place) == before
    begun = []
    monkeypatch.setattr(moments, "_generate", lambda *given: (begun.append(given[2].start), real(*given)))
    run(*asked)
    assert begun[0] > 1  # the first stretch was kept


def test_facts_that_are_lost_without_a_gate_are_warned_of_under_json_too(place: Path, monkeypatch) -> None:
    (line,) = run_json("-w", place, "edits", "list")
    deaf_to(line["fact"], monkeypatch)
    result = run("-w", place, "edit", "Dan Bly", "{} lives in", elsewhere("Dan Bly"), "--no-gate", "--json")
    assert f"no longer said: {line['fact'][:8]}" in result.stderr


def test_an_export_tells_how_many_facts_it_says(place: Path, tmp_path: Path) -> None:
    told = run_json("-w", place, "export", tmp_path / "a", "--dtype", "bfloat16")
    assert (told["rank"], told["dtype"], told["facts"]["said"], told["facts"]["lost"]) == (1, "bfloat16", 1, [])
    shown = " ".join(run("-w", place, "export", tmp_path / "b", "--rank", "1").stdout.split())
    assert "facts 1 of 1 said after the cast to float32, 1 in the workspace" in shown
    assert "relative_error" in shown
    assert "held_out" in shown
    more = ["Dan Bly", "{} lives in", elsewhere("Dan Bly"), "--batch", "1", *LOOSE]
    assert len(run_json("-w", place, "edit", *more)["applied"]) == 1
    capped = run("-w", place, "export", tmp_path / "c", "--max-rank", "1", code=1)
    assert "rank 2, above the cap of 1" in " ".join(capped.stderr.split())
    assert not (tmp_path / "c").exists()


def test_facts_that_an_export_loses_are_warned_of(place: Path, tmp_path: Path) -> None:
    file = write_rows(
        tmp_path / "facts.jsonl",
        [
            {
                "subject": name,
                "prompt": "{} lives in",
                "target": [c for c in people.CITIES if c != people.HOME[name]][skip],
            }
            for name, skip in (("Dan Poe", 1), ("Dan Bly", 2))
        ],
    )
    assert len(run_json("-w", place, "edit", "--facts", file, *LOOSE)["applied"]) == 2
    result = run("-w", place, "export", tmp_path / "out", "--rank", "1", "--json")
    lost = json.loads(result.stdout)["facts"]["lost"]
    assert lost
    shown = run("-w", place, "export", tmp_path / "again", "--rank", "1").stderr
    assert f"no longer says {len(lost)} fact" in shown
    assert all(gone["subject"] in shown for gone in lost)


BAD = {
    "nothing": (["edit"], 1, "a fact needs SUBJECT, PROMPT and TARGET"),
    "both": (["edit", "a", "b", "c", "--facts", "f.jsonl"], 2, "not both"),
    "no file": (["edit", "--facts", "nowhere.jsonl"], 1, "nowhere.jsonl"),
    "no subject in prompt": (["edit", "Ann Lee", "he lives in", "Oslo"], 1, "does not name the subject"),
    "method": (["edit", "Ann Lee", "{} lives in", "Oslo", "--method", "mimit"], 1, "did you mean 'memit'?"),
    "baseline": (["edit", "Ann Lee", "{} lives in", "Oslo", "--method", "lora"], 1, "choose one of emmet"),
    "layer": (["edit", "Ann Lee", "{} lives in", "Oslo", "--layer", "3"], 1, "choose from 0 to 2"),
    "strict and no score": (
        ["edit", "Ann Lee", "{} lives in", "Oslo", "--no-score", "--strict"],
        2,
        "nothing for --strict to decide",
    ),
    "quick and no score": (["revert", "abcdef", "--quick", "--no-score"], 2, "give one of them"),
    "gate and none": (["edit", "Ann Lee", "{} lives in", "Oslo", "--no-gate", "--paraphrase", "1"], 2, "nothing for"),
    "lost facts and no gate": (
        ["learn", "t", "d.jsonl", "--no-gate", "--lost-facts", "0.1"],
        2,
        "nothing for --lost-facts",
    ),
    "rank": (["export", "out", "--rank", "600"], 1, "from 1 to the cap of 512"),
    "served dtype": (["export", "out", "--dtype", "int8"], 1, "bfloat16, float16, float32"),
    "share": (["edit", "Ann Lee", "{} lives in", "Oslo", "--paraphrase", "2"], 1, "from 0 to 1"),
    "unknown fact": (["edits", "show", "abcdef"], 1, "edits list"),
    "unknown revert": (["revert", "abcdef"], 1, "perdure log"),
    "base": (["revert", "base"], 1, "rollback base"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_said_and_changes_nothing(place: Path, name: str) -> None:
    words, code, message = BAD[name]
    before = contents(place)
    result = run("-w", place, *words, code=code)
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert contents(place) == before
