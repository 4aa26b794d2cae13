"""A task that is answered with labels on the command line: what each verb says of it."""

from pathlib import Path

import pytest
from shell import run, run_json, write_rows


def rows(start: int, number: int) -> list[dict[str, str]]:
    texts = {"card": "my card was lost", "loan": "how much can I borrow"}
    return [
        {"text": f"{text} {n}", "label": label, "split": split}
        for split, first, count in (("train", start, number), ("test", 100, 4))
        for n in range(first, first + count)
        for label, text in texts.items()
    ]


@pytest.fixture
def labelled(ws: Path, tmp_path: Path) -> Path:
    """A workspace with two tasks that were trained, and one that is answered with labels."""
    data = write_rows(tmp_path / "bank.jsonl", rows(0, 6))
    told = run("-w", ws, "learn", "bank", data, "--recipe", "slda", "--no-gate")  # invoice had parcel forgotten
    assert "learned bank" in told.stdout
    assert "updates" not in told.stderr
    return ws


def test_every_verb_knows_it(labelled: Path, tmp_path: Path):
    assert run("-w", labelled, "predict", "my card was lost 3", "--task", "bank").stdout == "card\n"
    assert run_json("-w", labelled, "predict", "my card was lost 3", "--task", "bank")["tokens"] == 0
    assert "labels of task bank" in run("-w", labelled, "predict", "my card", "--task", "bank").stderr
    assert run_json("-w", labelled, "matrix")["tasks"] == ["parcel", "invoice", "bank"]
    assert run_json("-w", labelled, "eval", "bank")["tasks"]["bank"]["score"] == 1
    assert "route:bank" in run_json("-w", labelled, "show")["slots"]
    assert "bank" in run_json("-w", labelled, "status")["tasks"]
    run("-w", labelled, "verify")
    run("-w", labelled, "report", "-o", tmp_path / "report.html")
    assert "bank" in (tmp_path / "report.html").read_text()
    assert run("-w", labelled, "predict", "a", "--raw", "--task", "bank", code=1).stderr.count("leave --raw") == 1
    assert "has route:bank" not in run("-w", labelled, "gc").stdout
    more = write_rows(tmp_path / "more.jsonl", rows(50, 2))
    told = run_json("-w", labelled, "learn", "bank", more, "--recipe", "slda", "--no-gate")
    assert told["scores"]["bank"]["score"] == 1
    assert told["train_seconds"] > 0
    assert run_json("-w", labelled, "revert", "bank")["removed"] == ["route:bank"]


def test_a_dry_run_says_what_it_takes_and_changes_nothing(labelled: Path, tmp_path: Path):
    more = write_rows(tmp_path / "more.jsonl", rows(50, 2))
    head = run_json("-w", labelled, "status")["head"]
    told = run_json("-w", labelled, "learn", "bank", more, "--recipe", "slda", "--dry-run")
    assert (told["updates"], told["estimate"]["tokens"]) == (0, 0)
    assert not any("fewer than 50 updates" in text for text in told["notices"])
    assert run_json("-w", labelled, "status")["head"] == head


def test_export_offers_the_classifier(labelled: Path, tmp_path: Path):
    assert run_json("-w", labelled, "export", tmp_path / "adapter")["kind"] == "adapter"
    refused = run("-w", labelled, "export", tmp_path / "other", "--task", "bank", code=1)
    assert "--classifier writes" in refused.stderr
    assert run_json("-w", labelled, "export", tmp_path / "labels", "--classifier")["tasks"] == ["bank"]
    run("-w", labelled, "export", tmp_path / "third", "--classifier", "--merged", code=2)


def test_explain_counts_no_update():
    told = run_json("recipe", "explain", "slda", "--model", "smollm2-135m")
    assert (told["cost"]["forward"], told["cost"]["backward"]) == (0, 0)
    assert told["model"]["trainable"] == 0
    assert "train nothing" not in run("recipe", "explain", "slda").stderr
