"""`perdure log`: what came of each entry, who made it and why, and the candidates that were discarded."""

import re
import sqlite3
import subprocess
from pathlib import Path

import pytest
from shell import learn_quickly, run, run_json

from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.workflows import author

MESSAGE = "Invoices of May\nasked for by sales"


@pytest.fixture(autouse=True)
def ann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_AUTHOR", " Ann Lee <ann@example.org> ")


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is all of git's configuration, and no PERDURE_AUTHOR."""
    monkeypatch.delenv("PERDURE_AUTHOR")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "gitconfig"


def test_message_and_author_are_noted_with_an_entry_and_change_no_id(ws: Path, files: Path, tmp_path: Path):
    known = run_json("-w", ws, "log")
    run("-w", ws, "rollback", "head~1")
    learn_quickly(ws, files, "invoice", "--no-gate", "-m", MESSAGE)
    assert [line["entry"] for line in run_json("-w", ws, "log")] == [line["entry"] for line in known]  # the same id
    run("-w", ws, "rollback", "base")
    learn_quickly(ws, files, "invoice", "--no-gate", "--message", f" {MESSAGE} ")
    (line, *_) = run_json("-w", ws, "log")
    assert (line["author"], line["message"]) == ("Ann Lee <ann@example.org>", MESSAGE)
    found = run_json("-w", ws, "show")
    assert (found["author"], found["message"]) == ("Ann Lee <ann@example.org>", MESSAGE)
    assert "signature" not in found
    told = run("-w", ws, "show").stdout
    assert re.search(r"^author +Ann Lee <ann@example.org>$", told, re.MULTILINE)
    assert "Invoices of May" in told
    told = run("-w", ws, "log").stdout.splitlines()[1]
    assert (
        told.split("  Ann Lee  ")[1].strip() == "Invoices of May asked for by sales"
    )  # the address is in show and --json
    run("-w", ws, "report", "-o", tmp_path / "page.html")
    assert "Invoices of May asked for by sales, Ann Lee &lt;ann@example.org&gt;" in (tmp_path / "page.html").read_text()
    assert run_json("-w", ws, "verify")["ok"]


def test_the_log_tells_verdict_score_and_recipe(ws: Path):
    invoice, parcel, base = run_json("-w", ws, "log")
    assert (invoice["verdict"], invoice["recipe"]) == ("off", "lora_mlp")
    assert parcel["score"] == run_json("-w", ws, "show", "head~1")["scores"]["parcel"]["now"]["score"] > 0
    assert (base["verdict"], base["score"], base["recipe"]) == (None, None, None)
    head, first, *_ = run("-w", ws, "log").stdout.splitlines()
    assert head.split()[:8] == ["entry", "time", "(UTC)", "what", "gate", "score", "recipe", "parent"]
    assert first.split()[5:8] == ["off", f"{invoice['score']:.1%}", "lora_mlp"]


def test_discarded_candidates_are_listed_on_request(ws: Path, files: Path):
    run("-w", ws, "rollback", "head~1")
    learn_quickly(ws, files, "invoice", "--floor", "1", "--set", "max_grad_norm=1e-9", "-m", "too slow", code=3)
    waiting = run_json("-w", ws, "log", "--all")[0]
    assert (waiting["refs"], waiting["verdict"]) == (["candidate"], "fail")
    usual = run_json("-w", ws, "log")
    run("-w", ws, "discard")
    run("-w", ws, "gc")
    assert run_json("-w", ws, "log") == usual
    (line,) = [line for line in run_json("-w", ws, "log", "--all") if line not in usual]
    assert line == {**waiting, "refs": [], "discarded": line["discarded"]}
    assert (line["task"], line["message"], line["author"]) == ("invoice", "too slow", "Ann Lee <ann@example.org>")
    assert line["score"] is not None
    assert "(discarded 20" in run("-w", ws, "log", "--all").stdout
    assert "discarded" not in run("-w", ws, "log").stdout
    assert "discarded" in run("-w", ws, "gc", "--abandoned", code=1).stderr
    assert run_json("-w", ws, "gc", "--abandoned", "--yes")["entries"] == 2  # that line, and the entry rolled back
    assert [one["task"] for one in run_json("-w", ws, "log", "--all")] == ["parcel", None]
    assert run_json("-w", ws, "verify")["ok"]
    learn_quickly(ws, files, "invoice", "--floor", "1", "--set", "max_grad_norm=1e-9", "-m", "again", code=3)
    again = [line for line in run_json("-w", ws, "log", "--all") if line["entry"] == waiting["entry"]]
    assert [line["refs"] for line in again] == [["candidate"]]  # the same id, which waits and is listed once
    run("-w", ws, "accept")
    again = [line for line in run_json("-w", ws, "log", "--all") if line["entry"] == waiting["entry"]]
    assert [(line["refs"], line.get("discarded"), line["message"]) for line in again] == [(["head"], None, "again")]
    assert "discarded" not in run("-w", ws, "log", "--all").stdout


def test_a_damaged_candidate_is_discarded_without_a_line(ws: Path, files: Path):
    run("-w", ws, "rollback", "head~1")
    learn_quickly(ws, files, "invoice", "--floor", "1", "--set", "max_grad_norm=1e-9", code=3)
    with sqlite3.connect(ws / "ledger.sqlite") as db:
        db.execute("UPDATE candidate SET notes = '[]'")
    run("-w", ws, "discard")
    assert run_json("-w", ws, "log", "--all") == run_json("-w", ws, "log")


@pytest.mark.parametrize("message", ["", " \n", "x" * 10_001, "\udc80"])
def test_a_message_that_cannot_be_stored_is_refused_before_anything_is_learned(ws: Path, files: Path, message: str):
    with pytest.raises(BadInput, match="the message"):
        Workspace.open(ws).learn("invoice", files / "invoice.yaml", message=message)
    with pytest.raises(BadInput, match="the message"):
        Workspace.open(ws).edit({"subject": "a", "prompt": "{} is", "target": "b"}, message=message)


def test_without_the_variable_the_author_is_gits(git: Path):
    assert author.author() is None
    git.write_text("[user]\n\tname = Bo\n")
    assert author.author() == "Bo"
    git.write_text("[user]\n\tname = Bo\n\temail = bo@example.org\n[core]\n\teditor = vi\n")
    assert author.author() == "Bo <bo@example.org>"
    git.write_text("[user\n")  # git complains, and nothing fails
    assert author.author() is None


def test_without_git_there_is_no_author(git: Path, monkeypatch: pytest.MonkeyPatch):
    git.write_text("[user]\n\tname = Bo\n")

    def hangs(*words: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("git", 5)

    with monkeypatch.context() as patch:
        patch.setattr(author.subprocess, "run", hangs)
        assert author.author() is None
    monkeypatch.setenv("PATH", "")
    assert author.author() is None
    assert author.sign("why").notes == {"signature": author.Signature(None, "why")}
    assert author.sign().notes == {}
