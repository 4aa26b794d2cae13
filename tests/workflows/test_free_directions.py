"""Adapters that keep to free directions, through the verbs of a workspace, and what is kept of a task that is taken out."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from edited import SPEC, logits, moved
from perdure import Workspace
from perdure.core.errors import BadInput, BadSpec, Interrupted
from perdure.core.slots import EDITS
from perdure.ledger.records import LearnRecord
from perdure.maths.low_rank import from_tensors
from perdure.train.checkpoint import Keeper

FAST = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "host": "loop",
    "lora_r": 2,
    "weight_decay": 0.1,
    "learning_rate": 1e-2,
}
TOWNS = {"a": "Oslo", "b": "Rome", "c": "Lima"}
POLICIES = {
    "inf_lora": {"inf_lora": {"energy": 0.5}},
    "osf": {"osf": {}},
    "osf, sum": {"osf": {"on": "sum"}},
    "osf, task": {"osf": {"on": "task"}},
}
every_policy = pytest.mark.parametrize("methods", POLICIES.values(), ids=POLICIES)


def rows(path, task, **settings):
    found = [
        {"prompt": f"{name} of {task} lives in", "completion": f" {TOWNS[task]}", "split": split}
        for split in ("train", "test")
        for name in ("Dan Kim", "Ann Poe", "Bob Lee", "Eve Cox")
    ]
    path.write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return path


def learn(ws, folder, task, methods, *, task_file=None, **overrides):
    data = task_file or rows(folder / f"{task}.jsonl", task)
    return ws.learn(
        task, data, recipe={"methods": methods}, overrides={**FAST, **overrides}, gate=None, allow_leaks=True
    )


def slots(ws, at="head"):
    return {name: found for name, found in ws.ledger.slots(ws.ledger.resolve(at)).items() if name != EDITS}


def state(ws, at="head"):
    return ws.ledger.objects.get(ws.ledger.resolve(at).state)


def adapter(ws, slot):
    return from_tensors(ws.ledger.objects.get(slots(ws)[slot]))


@every_policy
def test_learn_predict_edit_export_revert_and_rollback_go_on_with_it(ws, tmp_path, methods, people_folder):
    entries = [learn(ws, tmp_path, task, methods) for task in TOWNS]
    assert all(done.moved for done in entries)
    before, known = logits(ws), slots(ws)
    assert ws.predict("Dan Kim of b lives in", task="b")
    ws.edit([moved("Dan Kim")], spec=SPEC, gate=None)
    assert slots(ws) == known
    assert not torch.equal(logits(ws), before)
    ws.rollback("head~1")
    assert torch.equal(logits(ws), before)
    task = "b" if "task:b" in known else None
    ws.export(tmp_path / "out", task=task)
    served = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(people_folder), tmp_path / "out").eval()
    ids = ws.tokenizer("Dan Kim of b lives in", return_tensors="pt")
    with torch.no_grad():
        expected = ws.model("head", task)(**ids).logits
        torch.testing.assert_close(served(**ids).logits, expected, rtol=1e-4, atol=1e-4)
    if "skill" in known:
        with pytest.raises(BadInput, match="in weights that other tasks go through too"):
            ws.revert("b")
    else:
        ws.revert("b")
        assert slots(ws) == {name: found for name, found in known.items() if not name.startswith(("sum:b", "task:b"))}
        learn(ws, tmp_path, "b", methods)
    assert slots(ws).keys() == known.keys()
    assert ws.verify().ok
    again = Workspace.open(ws.ledger.root)
    assert torch.equal(logits(again), logits(ws))


def test_inf_lora_keeps_the_directions_of_a_task_that_was_taken_out_and_later_tasks_stay_outside(ws, tmp_path):
    methods = POLICIES["inf_lora"]
    for task in "ab":
        learn(ws, tmp_path, task, methods)
    kept = state(ws)
    ws.revert("a")
    assert all(torch.equal(state(ws)[key], value) for key, value in kept.items())
    learn(ws, tmp_path, "c", methods)
    own = adapter(ws, "sum:c")
    for key, basis in kept.items():
        down = own[key.removeprefix("inf_lora/basis/")].down
        assert (down @ basis.T).norm() <= 1e-5 * down.norm()
    ws.rollback("base")
    assert ws.ledger.resolve("head").state is None
    learn(ws, tmp_path, "c", methods)  # as a first task
    assert not torch.equal(adapter(ws, "sum:c")[min(own)].down, own[min(own)].down)


def test_inf_lora_measures_what_its_inputs_leave_and_warns_where_that_is_little(ws, tmp_path):
    def outside(entry):
        beats = ws.ledger.note(entry, "record", LearnRecord).heartbeats["inf_lora"]
        return [beat.outside for _, beat in beats if beat.outside is not None]

    first = learn(ws, tmp_path, "a", {"inf_lora": {"energy": 0.999}})
    assert outside(first.entry) == [1.0]
    again = learn(ws, tmp_path, "b", {"inf_lora": {"energy": 0.999}})  # which begins with nearly the same words
    (share,) = outside(again.entry)
    assert 0 < share < 0.05
    (warning,) = [text for text in again.warnings if "inf_lora leaves" in text]
    assert f"{share:.1%} of the energy of this task's inputs" in warning
    assert not any("leaves" in text for text in first.warnings)


def test_inf_lora_learns_a_task_again_with_its_a_and_trains_b(ws, tmp_path):
    for task in "ab":
        learn(ws, tmp_path, task, POLICIES["inf_lora"])
    old = adapter(ws, "sum:a")
    learn(ws, tmp_path, "a", POLICIES["inf_lora"])
    new = adapter(ws, "sum:a")
    assert all(torch.equal(new[module].down, patch.down) for module, patch in old.items())
    assert any(not torch.equal(new[module].up, patch.up) for module, patch in old.items())


@pytest.mark.parametrize("methods", [POLICIES["inf_lora"], POLICIES["osf"]], ids=["inf_lora", "osf"])
def test_a_learn_that_is_stopped_and_run_again_has_the_id_of_an_unbroken_one(ws, tmp_path, methods, monkeypatch):
    other = Workspace.open(shutil.copytree(ws.ledger.root, tmp_path / "other"))
    for space in (ws, other):
        learn(space, tmp_path, "a", methods)
    whole = learn(other, tmp_path, "b", methods)
    after, stopped = Keeper.after, []

    def stop(keeper, update, optimizer):
        keeper.stop = (lambda: "SIGTERM") if update == 0 and not stopped else (lambda: None)
        stopped.append(update)
        after(keeper, update, optimizer)

    monkeypatch.setattr(Keeper, "after", stop)
    with pytest.raises(Interrupted):
        learn(ws, tmp_path, "b", methods)
    again = Workspace.open(ws.ledger.root)
    assert learn(again, tmp_path, "b", methods).entry == whole.entry


def test_protect_base_without_general_rows_is_refused_and_with_them_goes_on(ws, tmp_path):
    methods = {"inf_lora": {"energy": 0.5, "protect": "base"}}
    with pytest.raises(BadSpec, match="inf_lora with protect: base reads general rows, and this learn has none"):
        learn(ws, tmp_path, "a", methods)
    (tmp_path / "general.jsonl").write_text(
        "\n".join(
            json.dumps({"prompt": f"{name} lives in", "completion": " Oslo"})
            for name in ("Dan Kim", "Dan Poe", "Dan Bly")
        ),
        encoding="utf-8",
    )
    (tmp_path / "a.yaml").write_text(
        f"train: {rows(tmp_path / 'a.jsonl', 'a').name}\ngeneral: general.jsonl\n", encoding="utf-8"
    )
    methods["instruction_replay"] = {"mix": 0.3}
    done = learn(ws, tmp_path, "a", methods, task_file=tmp_path / "a.yaml")
    beats = ws.ledger.note(done.entry, "record", LearnRecord).heartbeats["inf_lora"]
    assert beats[0][1].outside < 1


def test_osf_does_not_go_on_with_an_adapter_that_was_learned_without_it(ws, tmp_path):
    learn(ws, tmp_path, "a", {})
    head = ws.ledger.resolve("head")
    with pytest.raises(BadSpec, match="osf cannot go on with this adapter"):
        learn(ws, tmp_path, "b", {"osf": {}})
    assert ws.ledger.resolve("head") == head
    learn(ws, tmp_path, "b", {"osf": {"on": "sum"}})
