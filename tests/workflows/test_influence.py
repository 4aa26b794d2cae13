"""What is left of a task when it is taken out, and when its rows are erased."""

import json

import pytest

from perdure import Workspace
from perdure.core.errors import NotFound
from perdure.workflows.learn.influence import influence

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}
OWN, SUM = {"methods": {"per_task": {}}}, {"methods": {"incremental": {}}}
OWN_REPLAYING = {"methods": {"per_task": {}, "replay": {}}}


def learn(ws, tmp_path, task, recipe, **overrides):
    rows = [
        {"text": f"{task} {i}", "label": f"{task} {i % 2}", "split": "test" if i > 7 else "train"} for i in range(12)
    ]
    path = tmp_path / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return ws.learn(task, path, recipe=recipe, overrides={**FAST, **overrides}, gate=None)


def left(ws, task, at="head"):
    found = influence(ws.ledger, ws.ledger.resolve(at), task)
    return found.own, found.learned


@pytest.fixture
def ws(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")


def test_what_an_adapter_of_its_own_learned_leaves_with_it(ws, tmp_path):
    learn(ws, tmp_path, "one", OWN)
    learn(ws, tmp_path, "two", OWN)
    assert left(ws, "one") == (("task:one",), ())
    done = ws.revert("one")
    assert done.removed == ("task:one",)
    assert done.warnings == ()
    assert left(ws, "one") == ((), ())
    assert left(ws, "two") == (("task:two",), ())


def test_replayed_rows_and_continued_weights_are_found(ws, tmp_path):
    learn(ws, tmp_path, "one", OWN_REPLAYING)
    learn(ws, tmp_path, "two", OWN_REPLAYING)  # trains on rows of one from memory
    learn(ws, tmp_path, "three", "naive")
    learn(ws, tmp_path, "four", "naive")
    assert left(ws, "one") == (("task:one",), ("two",))
    assert left(ws, "three") == ((), ("three",))
    done = ws.revert("one")
    assert any("two was trained on rows of one from memory too" in text for text in done.warnings)
    learn(ws, tmp_path, "four", "naive", start="base")
    assert left(ws, "three") == ((), ())


def test_weights_that_went_on_from_those_of_a_task_have_it_in_them(ws, tmp_path):
    learn(ws, tmp_path, "one", "naive")
    learn(ws, tmp_path, "two", OWN)
    learn(ws, tmp_path, "three", "naive")
    assert left(ws, "one") == ((), ("one",))
    assert left(ws, "three") == ((), ("three",))


def test_a_copy_of_an_adapter_has_what_that_learned(ws, tmp_path):
    learn(ws, tmp_path, "one", "naive")
    learn(ws, tmp_path, "two", {"methods": {"per_task": {"start": "shared"}}})
    learn(ws, tmp_path, "three", "naive", start="base")
    assert left(ws, "one") == ((), ("one",))
    ws.revert("two")
    assert left(ws, "one") == ((), ())


def test_erasing_a_task_leaves_no_text_and_says_what_stays(ws, tmp_path):
    learn(ws, tmp_path, "one", SUM)
    learn(ws, tmp_path, "two", {"methods": {"incremental": {}, "replay": {}}})
    gone = ws.delete_task_rows("one")
    assert (gone.rows, gone.already, gone.own, gone.others) == (12, False, ("sum:one",), ())
    assert {row.task for row in ws.ledger.kept_rows()} == {"two"}
    assert b"one 3" not in (ws.ledger.root / "ledger.sqlite").read_bytes()
    assert ws.delete_task_rows("one").already
    assert ws.verify().ok
    learned = learn(ws, tmp_path, "three", SUM)
    assert any("task one has no test rows left" in text for text in learned.warnings)
    ws.revert("one")
    assert ws.delete_task_rows("one").own == ()
    with pytest.raises(NotFound, match="known are one, three, two"):
        ws.delete_task_rows("none")


def test_rows_of_another_task_with_the_same_text_stay(ws, tmp_path):
    learn(ws, tmp_path, "one", OWN)
    path = tmp_path / "one.jsonl"
    ws.learn("again", path, recipe=OWN, overrides=FAST, gate=None)
    ws.delete_task_rows("one")
    assert {row.task for row in ws.ledger.kept_rows()} == {"again"}


def test_a_merge_of_some_tasks_has_nothing_of_the_others(ws, tmp_path):
    for task in ("one", "two", "three"):
        learn(ws, tmp_path, task, OWN)
    ws.merge(rank=2, tasks=["one", "two"], gate=None)
    assert left(ws, "one") == (("task:one",), ("one",))
    assert left(ws, "three") == (("task:three",), ())
    ws.revert("three")
    assert left(ws, "three") == ((), ())
