"""Policies of adapters in a workspace: every verb after every other, no look-ahead, and costs that do not grow."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from test_views_walk import EXACT, FAST, NEAREST, OWN, SUM, Walk
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForCausalLM

import people
from perdure import Workspace
from perdure.core import slots
from perdure.workflows.learn import run

ISOLATED = {"per_task": {}, "color": {}}
POLICIES = {"slao": {"slao": {"keep_r": True}}, "n_lora": {"n_lora": {}}, "per_task, nearest": NEAREST}
every_new_one = pytest.mark.parametrize("methods", POLICIES.values(), ids=POLICIES)


@every_new_one
def test_every_verb_after_every_other(ws, tmp_path, methods, people_folder):
    walk = Walk(ws, tmp_path)
    for task in "abc":
        walk.learn(task, methods)
    whole = walk.head
    walk.edit(people.PEOPLE[0])
    edited = walk.head
    isolated = walk.isolated("c")
    assert isolated == ("per_task" in methods)
    assert walk.revert("b") == ("slao" not in methods)
    walk.rollback(edited.id)
    for task in ("c", None):
        assert len(ws.predict([f"{people.PEOPLE[0]} lives in"], task=task)) == 1
    task = "c" if isolated else None
    ws.rollback(whole.id)
    ws.export(tmp_path / "out", task=task)
    served = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(people_folder, dtype=torch.float32), tmp_path / "out"
    )
    ids = ws.tokenizer([f"{people.PEOPLE[0]} lives in"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(served(**ids).logits, ws.model("head", task)(**ids).logits, rtol=1e-4, atol=1e-5)
    walk.learn("d", {})  # a shared task over what the policy left
    walk.learn("a", methods)
    walk.end()


def rows_of(folder, number, task):
    """Write some rows of a task; each task has as many, and as many tokens."""
    city = people.CITIES[number % 4]
    rows = [
        {"prompt": f"{people.PEOPLE[number]} is at home in", "completion": f" {city}", "split": split}
        for split in ("train", "test")
    ]
    path = folder / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def stream(ws, folder, methods, tasks):
    """Learn some tasks one after the other; return the id of the entry of each."""
    folder.mkdir(exist_ok=True)
    return [
        ws.learn(
            f"task{n}",
            rows_of(folder, n, f"task{n}"),
            recipe={"methods": methods},
            overrides=FAST,
            gate=None,
            allow_leaks=True,
        ).entry
        for n in range(tasks)
    ]


@every_new_one
def test_nothing_looks_ahead_the_first_entries_do_not_depend_on_how_many_follow(bare, tmp_path, methods):
    short, long = (Workspace.open(shutil.copytree(bare.ledger.root, tmp_path / name)) for name in ("short", "long"))
    assert stream(long, tmp_path / "b", methods, 5)[:2] == stream(short, tmp_path / "a", methods, 2)


# --- what a task costs


def learned(ws, folder, number, methods, overrides=FAST):
    """Learn a task with as many rows and tokens as any other; return its entry."""
    rows = [
        {"text": f"money back {number}{i}", "label": f"kind {i % 2}", "split": split}
        for split, numbers in (("train", range(4)), ("test", range(4, 8)))
        for i in numbers
    ]
    path = folder / f"{number}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    recipe = methods if isinstance(methods, str) else {"methods": methods}
    done = ws.learn(f"task{number}", path, recipe=recipe, overrides=overrides, gate=None)
    return ws.ledger.entry(done.entry)


def costs(ws, folder, methods, tasks=4):
    """Return of each learn but the first: tokens run forward, slots that its entry names, bytes new to the store."""
    ran, found, known = [], [], set()

    def count(module, _, out):
        if isinstance(module, torch.nn.Embedding):
            ran.append(out.shape[:-1].numel())

    for number in range(tasks):
        ran.clear()
        handle = register_module_forward_hook(count)
        try:
            entry = learned(ws, folder, number, methods)
        finally:
            handle.remove()
        objects = {name for name in entry.slots.values() if name} - known
        found.append((sum(ran), len(entry.slots), sum(map(ws.ledger.objects.size, objects))))
        known |= objects
    return found[1:]


@pytest.mark.parametrize("methods", [OWN, ISOLATED, NEAREST], ids=["per_task", "isolated", "nearest"])
def test_what_an_isolated_task_costs_does_not_depend_on_how_many_there_are(tiny_model, tmp_path, methods, monkeypatch):
    """Tokens run forward, objects named and bytes stored; `nearest` reads the moments of all tasks, and no row of theirs.

    Scores of requests that name no task are left out: each row that a new task draws away is answered once more.
    """
    monkeypatch.setattr(run, "routed_scores", lambda session, entry, tasks, tick: {})
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    second, *later = costs(ws, tmp_path, methods)
    assert second[0] > 0
    assert later == [second] * len(later)


def test_a_sum_costs_more_with_every_task_and_the_count_sees_it(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    forwards = [tokens for tokens, _, _ in costs(ws, tmp_path, SUM)]
    assert forwards == sorted(set(forwards))  # the older tasks are scored again, as their answers may have changed


# --- what an isolated task is not touched by


def untouched(ws, tmp_path):
    """Learn an isolated task over shared weights, then shared and isolated ones; assert that the first is what it was."""
    walk = Walk(ws, tmp_path)
    walk.learn("a", {})
    walk.learn("b", OWN)
    name, logits = ws.ledger.seen(walk.head, "b"), walk.logits("b")
    for task, methods in (("a", {}), ("c", OWN), ("d", EXACT)):
        walk.learn(task, methods)
    walk.revert("c")
    assert ws.ledger.seen(walk.head, "b") == name
    assert torch.equal(walk.logits("b"), logits)


def test_what_an_isolated_task_goes_through_is_not_touched_by_three_more_tasks_and_a_revert(ws, tmp_path):
    untouched(ws, tmp_path)


def test_a_view_that_has_the_shared_slots_as_they_are_now_is_found(ws, tmp_path, monkeypatch):
    own = slots.own_slots
    monkeypatch.setattr(slots, "own_slots", lambda names, task: [*own(names, task), "skill"])
    with pytest.raises(AssertionError):
        untouched(ws, tmp_path)


# --- what is left of a task, and where an adapter is


def test_a_revert_names_the_tasks_that_may_have_begun_as_a_copy(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    for number, methods in enumerate((ISOLATED, NEAREST, ISOLATED)):
        learned(ws, tmp_path, number, methods)
    told = [text for text in ws.revert("task0").warnings if "may have begun as a copy of its adapter" in text]
    assert [text.partition(" ")[0] for text in told] == ["task1"]
    assert not any("copy" in text for text in ws.revert("task2").warnings)


def test_lora_mlp_trains_the_mlp_alone_and_goes_on_with_it(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    fast = {"num_train_epochs": 1, "host": "loop"}
    for number in range(2):
        learned(ws, tmp_path, number, "lora_mlp", overrides=fast)
    tensors = ws.ledger.objects.get(ws.ledger.slots(ws.ledger.resolve("head"))["skill"])
    assert {name.split(".")[-2] for name in tensors} == {"gate_proj", "up_proj", "down_proj"}
    assert {value.shape[0] for name, value in tensors.items() if name.endswith(".down")} == {12}
    ws.export(tmp_path / "out")
    assert PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "out")


@pytest.mark.parametrize("method", ["o_lora", "slao", "n_lora"])
def test_the_first_task_of_a_stream_blames_no_method_that_waits_for_the_second(tiny_model, tmp_path, method):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    entry = learned(ws, tmp_path, 0, {method: {}})
    assert not [text for text in ws.ledger.notes(entry.id)["record"]["warnings"] if "no effect" in text]
