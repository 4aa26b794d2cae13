"""Merges among other verbs: after each step the store is sound, and facts, scores and exports follow the merged model."""

import json

import pytest
import torch

import people
from edited import FACTS, SAID, SPEC, logits
from perdure import Workspace
from perdure.workflows.fact_records import record_at

FAST = {"num_train_epochs": 1, "host": "loop", "lora_r": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
TASKS = ("a", "b", "c", "d")


def learn(ws, folder, task, methods):
    names = people.PEOPLE[4 * TASKS.index(task) :][:4]
    rows = [
        {"prompt": f"{name} is at home in", "completion": f" {people.HOME[name]}", "split": split}
        for split in ("train", "test")
        for name in names
    ]
    path = folder / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    ws.learn(task, path, recipe={"methods": methods}, overrides=FAST, gate=None, allow_leaks=True)


def slots(ws):
    return ws.ledger.slots(ws.ledger.resolve("head"))


def said(ws):
    return [line.efficacy for line in record_at(ws.ledger, ws.ledger.resolve("head")).facts]


def test_learns_of_a_sum_merges_an_edit_a_revert_a_rollback_and_an_export(ws, tmp_path):
    for task in TASKS[:3]:
        learn(ws, tmp_path, task, {"incremental": {}})
    ws.merge(4, gate=None)
    assert set(slots(ws)) == {"skill"}
    learn(ws, tmp_path, "d", {"incremental": {}})
    assert set(slots(ws)) == {"skill", "sum:d"}
    ws.edit(FACTS[:2], spec=SPEC, gate=SAID)
    assert said(ws) == [True, True]
    second = ws.merge(6, gate=None)
    assert {"skill", "edits"} == set(slots(ws))
    assert said(ws) == [True, True]  # carried over, and verified on the merged model
    note = ws.ledger.notes(second.entry)
    assert note["edits"]
    ws.revert(FACTS[0].id)
    assert len(said(ws)) == 1
    ws.rollback(second.entry)
    assert said(ws) == [True, True]
    assert set(ws.matrix().tasks) == set(TASKS)
    assert [entry.kind for entry in ws.ledger.ancestors(ws.ledger.resolve("head"))][:3] == ["merge", "edit", "learn"]
    before = logits(ws)
    out = ws.export(tmp_path / "adapter")
    assert out.task is None
    assert ws.verify().ok
    ws = Workspace.open(ws.ledger.root)
    assert torch.equal(logits(ws), before)


@pytest.mark.parametrize("drop", [False, True])
def test_learns_of_their_own_a_merge_and_predictions(ws, tmp_path, drop):
    for task in TASKS[:3]:
        learn(ws, tmp_path, task, {"per_task": {}})
    prompt = f"{people.PEOPLE[0]} is at home in"
    before = ws.predict(prompt, task="a")[0].answer
    ws.merge(6, how="average", drop=drop, gate=None)
    if not drop:
        assert ws.predict(prompt, task="a")[0].answer == before
    assert ws.predict(prompt)[0].answer
    with torch.no_grad():
        ids = ws.tokenizer(prompt, return_tensors="pt")
        own, merged = (ws.model("head", task)(**ids).logits for task in ("a", None))
    assert torch.equal(own, merged) == drop
    ws.export(tmp_path / "adapter")
    if not drop:
        ws.export(tmp_path / "own", task="a")
    assert ws.verify().ok
