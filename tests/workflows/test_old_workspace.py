"""A workspace that older code made opens, reads as it did, and goes on: schema 2, with two learns, two facts and a revert.

`old/schema_2.tar.gz` holds the workspace, its tiny base model and what the older code read from it (known.json).
"""

import json
import tarfile
from pathlib import Path

import pytest
import torch

from perdure import Workspace
from perdure.ledger import database

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}


@pytest.fixture
def old(tmp_path):
    """The folder, the model put where perdure.json says it is."""
    with tarfile.open(Path(__file__).parent / "old" / "schema_2.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    config = tmp_path / "workspace" / "perdure.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "model": str(tmp_path / "model")}), "utf-8")
    return tmp_path


def known(old):
    return json.loads((old / "known.json").read_text("utf-8"))


def test_it_reads_as_it_did(old):
    ws, then = Workspace.open(old / "workspace"), known(old)
    head = ws.ledger.resolve("head")
    assert (head.id, ws.ledger.state(head), ws.ledger.seen(head, "one")) == (then["head"], then["state"], then["state"])
    matrix = ws.matrix().to_json()
    assert "not scored" in matrix["metrics"].pop("forgetting")["missing"]  # which stages, it says in other words
    assert "was not scored" in then["matrix"]["metrics"].pop("forgetting")["missing"]
    assert matrix == then["matrix"]
    assert [line.to_json() for line in ws.edits()] == [{**line, "lost_in": []} for line in then["edits"]]
    assert [line.entry for line in ws.ledger.log()] == [line["entry"] for line in then["log"]]
    ids = ws.tokenizer("Ann Lee is a", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found = ws.model()(input_ids=ids).logits[0, -1]
    torch.testing.assert_close(found, torch.tensor(then["logits"]), rtol=1e-4, atol=1e-4)
    assert ws.verify().ok


def test_it_is_migrated_by_its_first_write_and_goes_on(old):
    ws = Workspace.open(old / "workspace")
    rows = [{"text": f"Cid Ray is a {n}", "label": "Rome", "split": "test" if n > 6 else "train"} for n in range(9)]
    (old / "three.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    before = ws.matrix().score
    done = ws.learn(
        "three", old / "three.jsonl", recipe="dual_replay", overrides={**FAST, "methods.ewc": {}}, gate=None
    )
    assert set(done.scores) == {"one", "two", "three"}
    assert tuple(line[:2] for line in ws.matrix().score[: len(before)]) == before
    assert ws.edits()
    ws.rollback("head~1")
    assert ws.ledger.resolve("head").id == known(old)["head"]
    again = Workspace.open(old / "workspace")
    with again.ledger.reading() as connection:
        version = connection.exec_driver_sql("SELECT schema_version FROM meta").scalar()
        lines = connection.exec_driver_sql("SELECT version, time IS NULL FROM migrations ORDER BY version").all()
    assert version == database.SCHEMA_VERSION
    assert lines == [
        (2, 1),
        (3, 0),
        (4, 0),
        (5, 0),
        (6, 0),
    ]  # the file had the second before; the others came with the first write
    assert again.verify().ok
