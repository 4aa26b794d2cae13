"""Names of tasks, refs and ids, where one is the beginning of another."""

import json

import pytest

from perdure import Workspace
from perdure.core.errors import BadInput, NotFound

OWN = {"methods": {"per_task": {}}}
FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}


def learn(ws, tmp_path, task):
    rows = [{"text": f"{task} {i}", "label": "yes", "split": "test" if i > 3 else "train"} for i in range(6)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return ws.learn(task, path, recipe=OWN, overrides=FAST, gate=None)


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A workspace with a task whose name is the beginning of the id of its base entry, and with task `head`."""
    folder = tmp_path_factory.mktemp("names")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    base = ws.ledger.resolve("base").id
    for task in (base[:6], "head"):
        learn(ws, folder, task)
    return ws, base


def test_a_task_wins_over_an_id_that_begins_so_where_tasks_are_read(made):
    ws, base = made
    assert ws.evaluate([base[:6]]).tasks.keys() == {base[:6]}
    assert [str(answer) for answer in ws.predict(f"{base[:6]} 1", task=base[:6])]
    done = ws.revert(base[:6])
    assert done.task == base[:6]
    assert set(done.removed) == {f"task:{base[:6]}"}
    assert ws.revert(base[:6]).removed == done.removed
    ws.rollback("head~1")


def test_where_entries_are_read_an_id_that_is_a_task_needs_more_digits(made):
    ws, base = made
    for verb in (ws.show, ws.rollback, ws.gate, lambda ref: ws.diff(ref, "head")):
        with pytest.raises(BadInput, match=f"'{base[:6]}' is the name of a task, and entry {base[:16]}.*more digits"):
            verb(base[:6])
    assert ws.show(base[:8]).entry.id == base
    with pytest.raises(BadInput, match="name of a task"):
        ws.show(f"{base[:6]}~1")


def test_the_name_of_a_task_that_is_a_ref_is_refused_where_both_are_read(made):
    ws, _ = made
    with pytest.raises(BadInput, match="'head' is the name of a task and of entry"):
        ws.revert("head")
    assert ws.show("head").entry.task == "head"
    assert ws.evaluate(["head"]).tasks.keys() == {"head"}
    with pytest.raises(NotFound):
        ws.revert("none")
