"""A task with many test rows is scored on a sample of them, and on all of them once that is asked for."""

import json

import pytest

from perdure import Gate, Workspace
from perdure.core.errors import BadSpec
from perdure.data.sample import sample_of
from perdure.workflows.inspect.matrix import measured

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "host": "loop"}


def write(path, task, n):
    rows = [{"prompt": f"{task} {i}?", "completion": f" {i % 3}"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """Of the data of two tasks, and a workspace that learned the first one on a sample of its test rows."""
    folder = tmp_path_factory.mktemp("test-rows")
    for task in ("parcel", "bill"):
        write(folder / f"{task}.jsonl", task, 8)
        write(folder / f"{task}-test.jsonl", f"about {task}", 12)
    for name, settings in (("ws", {"test_rows": 5}), ("whole", {})):
        ws = Workspace.init(folder / name, str(tiny_model), dtype="float32")
        learn(ws, folder, "parcel", **settings)
    return folder


def learn(ws, folder, task, gate=None, data=None, **settings):
    test = folder / f"{task}-test.jsonl"
    given = {"max_new_tokens": 1, **settings}
    return ws.learn(
        task, data or folder / f"{task}.jsonl", test=test, recipe="naive", overrides=FAST, gate=gate, settings=given
    )


def cell(ws, task, at="head"):
    entry = ws.ledger.resolve(at)
    return ws.ledger.score(ws.ledger.seen(entry, task), entry.tasks[task])


def test_a_sample_is_scored_at_each_learn_and_all_rows_once_they_are_asked_for(folder):
    ws, whole = (Workspace.open(folder / name) for name in ("ws", "whole"))
    assert ws.ledger.resolve("head").id == whole.ledger.resolve("head").id  # what is scored is no part of an id
    task = ws.session.task("parcel", ws.ledger.resolve("head"))
    sample = cell(ws, "parcel")
    assert sample.rows == tuple(task.test[i].hash for i in sample_of(task.test, 5))
    every = cell(whole, "parcel")
    assert every.n == 12
    by_row = dict(zip(every.rows, every.items, strict=True))
    assert sample.items == tuple(by_row[row] for row in sample.rows)

    with pytest.warns(UserWarning, match="task parcel: 5 of 12 test rows are scored; --all scores all of them"):
        assert ws.evaluate().tasks["parcel"].n == 5
    assert ws.evaluate(every=True).tasks["parcel"].n == 12
    assert cell(ws, "parcel") == every.__class__(**{**vars(every), "seconds": cell(ws, "parcel").seconds})
    assert ws.evaluate().tasks["parcel"].n == 12  # measured already
    assert measured(ws.ledger, ws.ledger.resolve("head")).scores[-1][0].n == 12

    told = learn(ws, folder, "bill", gate=Gate(), test_rows=4)
    assert {name: score.n for name, score in told.scores.items()} == {"parcel": 5, "bill": 4}
    assert told.before["base"].n == 4
    assert told.gate.tasks[0].n == 5  # of the 12 that were scored when it was learned, those scored now
    (said,) = [text for text in told.warnings if "test rows of bill" in text]
    assert said.startswith(
        "4 of 12 test rows of bill are scored at each learn (`test_rows`); 'perdure eval bill --all'"
    )
    more = learn(ws, folder, "bill", data=write(folder / "more.jsonl", "another bill", 8))
    assert more.scores["bill"].n == 4  # an update inherits the number
    assert ws.verify().problems == ()


def test_a_task_with_few_test_rows_is_scored_on_all_of_them_and_the_number_is_at_least_one(folder):
    whole = Workspace.open(folder / "whole")
    task = whole.session.task("parcel", whole.ledger.resolve("head"))
    assert task.scored_rows == len(task.test) == 12
    with pytest.raises(BadSpec, match="test_rows"):
        whole.plan("bill", folder / "bill.jsonl", settings={"test_rows": 0})
