"""Requests without a task on the command line, where tasks were learned with a router."""

import json
from pathlib import Path

import pytest
from shell import run, run_json

from routed import made, rows


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tiny_model, tmp_path_factory.mktemp("routed"), "ws", ["refund", "parcel"]).ledger.root


FAR = "zzz qqq !!! ??? xxx %%% zzz qqq !!! ??? xxx"


def test_a_text_is_sent_to_its_task_and_stderr_and_json_name_it(folder: Path):
    lines = "\n".join([*(row["text"] for row in rows("parcel", 200, 6)), FAR])
    done = run("-w", folder, "predict", "-", "--max-new-tokens", "2", "--json", input=lines)
    assert "sent by their texts: " in done.stderr
    *answers, far = json.loads(done.stdout)
    assert any(one["routed"]["task"] == one["task"] == "parcel" for one in answers)
    assert (far["task"], far["routed"]["task"], far["format"]) == (None, None, "chat")
    assert sum(far["routed"]["posterior"].values()) == pytest.approx(1, abs=0.01)
    done = run("-w", folder, "predict", FAR, "--max-new-tokens", "2")
    assert "no task is near the text" in done.stderr
    for unasked in (("--route", "none"), ("--task", "parcel")):
        found = run_json("-w", folder, "predict", FAR, "--max-new-tokens", "2", *unasked)
        assert (
            found["routed"] is None
        )  # no router was asked, which differs from {"task": null}: the router knows no task


def test_chat_says_which_task_answers(folder: Path):
    text = next(
        row["text"]
        for row in rows("parcel", 200, 20)
        if run_json("-w", folder, "predict", row["text"], "--max-new-tokens", "1")["task"] == "parcel"
    )
    told = run("-w", folder, "chat", "--max-new-tokens", "2", input=f"{text}\n{text}\n/reset\n{FAR}\n").stderr
    assert "answers in the chat template, through the adapter of the task that the conversation is about (" in told
    assert told.count("(task parcel answers)") == 1
    assert told.count("(no task answers)") == 1
    without = run("-w", folder, "chat", "--route", "none", "--max-new-tokens", "2", input=f"{text}\n").stderr
    assert ", without the adapters that" in without
    assert "answers)" not in without


def test_revert_prints_what_tasks_score_without_their_names_unless_nothing_is_scored(folder: Path):
    line = "without the tasks' names: "
    assert line in run("-w", folder, "revert", "refund").stdout
    run("-w", folder, "rollback", "head~1")
    assert line not in run("-w", folder, "revert", "refund", "--no-score").stdout
    run("-w", folder, "rollback", "head~1")
