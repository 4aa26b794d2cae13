"""Facts over the adapters of single tasks: what an adapter says otherwise is found, and no more is asked than needed."""

import json

import pytest
import torch

import people
from edited import FACTS, NAMES, A, C, moved, slot, write
from perdure.evaluate.gate import Gate
from perdure.workflows.edit import carry
from perdure.workflows.edit import state as edit_state
from perdure.workflows.edit.own_views import own_views
from perdure.workflows.edit.records import listed, lost_by_task
from perdure.workflows.fact_records import record_at

STRONG = {"num_train_epochs": 40, "learning_rate": 1e-2}
WEAK = {"num_train_epochs": 1, "learning_rate": 1e-6}


def learn(ws, tmp_path, task, names, form="{} lives in", recipe="per_task", **settings):
    """Learn in an adapter of the task's own that some people live elsewhere, and not where the facts say."""
    rows = [{"prompt": form.format(name), "completion": f" {moved(name, 1).target.strip()}"} for name in names]
    path = tmp_path / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, [{**row, "split": s} for s in ("train", "test") for row in rows])))
    fast = {"host": "loop", "lora_r": 4, **(settings or WEAK)}
    return ws.learn(task, path, recipe={"methods": {recipe: {}}}, overrides=fast, gate=Gate(), allow_leaks=True)


def lost_in(ws):
    lines = record_at(ws.ledger, ws.ledger.resolve("head")).facts
    return {line.fact: list(line.lost_in) for line in lines if line.lost_in}


@pytest.fixture
def asked(monkeypatch):
    """What facts were asked over: the slots without edits, and how many facts."""
    seen, verify = [], edit_state.Place.verify

    def watched(self, edit_set, facts=None, full=None):
        seen.append((sorted(self.others), len(edit_set.live if facts is None else facts)))
        return verify(self, edit_set, facts, full)

    monkeypatch.setattr(edit_state.Place, "verify", watched)
    return seen


def otherwise(ws, task):
    """Return the facts in force that the model of a task does not say, as it answers itself."""
    prompts = [fact.question for fact in FACTS]
    with torch.no_grad():
        logits = ws.model("head", task)(**ws.tokenizer(prompts, return_tensors="pt")).logits[:, -1]
    said = [ws.tokenizer.decode(row.argmax()) for row in logits]
    live = {line.fact for line in listed(ws.ledger)}
    return {fact.id for fact, word in zip(FACTS, said, strict=True) if fact.id in live and word != fact.target.strip()}


def test_a_fact_that_the_adapter_of_a_task_says_otherwise_is_named_with_the_task(edited, tmp_path, asked):
    done = learn(edited, tmp_path, "homes", NAMES[:1], **STRONG)
    assert done.moved  # the facts are in force where they were asked for: in what all tasks share
    lost = {fact: ["homes"] for fact in otherwise(edited, "homes")}
    assert A in lost
    assert lost_in(edited) == lost
    assert [line.efficacy for line in record_at(edited.ledger, edited.ledger.resolve("head")).facts] == [True] * 3
    told = "with the adapter of homes these edited facts are not said: "
    (warning,) = (said for said in done.warnings if told in said)
    assert all((fact.subject in warning) == (fact.id in lost) for fact in FACTS)
    assert [list(line.lost_in) for line in listed(edited.ledger)] == [lost.get(fact.id, []) for fact in FACTS]
    assert asked == [([], 3), (["task:homes"], 3)]

    asked.clear()
    again = learn(edited, tmp_path, "quiet", people.PEOPLE[:3], form="{} is at home in")
    assert lost_in(edited) == lost  # nothing changed there, and nothing is asked there
    assert not any("edited facts" in said for said in again.warnings)
    assert asked == [([], 3), (["task:quiet"], 3)]

    asked.clear()
    found = edited.verify_edits()
    assert found.lost == ()
    assert lost_by_task(found.facts) == {"homes": [fact.subject for fact in FACTS if fact.id in lost]}
    assert asked == [([], 3), (["task:homes"], 3), (["task:quiet"], 3)]

    edited.revert("homes")
    assert lost_in(edited) == {}


def test_an_edit_asks_the_new_facts_alone_over_the_adapters_and_a_revert_none(ws, tmp_path, asked):
    learn(ws, tmp_path, "homes", NAMES[:1], **STRONG)
    first = write(ws, FACTS[0])
    assert first.facts[0].lost_in == ("homes",)
    asked.clear()
    second = write(ws, FACTS[1], FACTS[2])
    lost = {line.fact for line in second.facts if line.lost_in} | {A}
    assert lost == otherwise(ws, "homes")
    assert lost_in(ws) == {fact: ["homes"] for fact in lost}
    assert [line for line in asked if line[0]] == [(["task:homes"], 2)]
    asked.clear()
    ws.revert(C)
    assert not [line for line in asked if line[0]]
    assert lost_in(ws) == {fact: ["homes"] for fact in lost - {C}}
    ws.revert(A)
    assert lost_in(ws) == {fact: ["homes"] for fact in lost - {A, C}}


def test_facts_that_are_written_again_are_asked_over_every_adapter(edited, tmp_path, asked, monkeypatch):
    learn(edited, tmp_path, "quiet", people.PEOPLE[:3], form="{} is at home in")
    before = slot(edited)
    asked.clear()
    found, lost = iter([[A]]), carry.lost
    monkeypatch.setattr(carry, "lost", lambda verdicts, said: next(found, None) or lost(verdicts, said))  # at first one
    done = learn(edited, tmp_path, "homes", people.PEOPLE[:3], form="{} is at home in", recipe="shared")
    assert slot(edited, done.entry) != before
    assert (["task:quiet"], 3) in asked


def test_tasks_with_equal_adapters_are_asked_once():
    slots = {
        "edits": "e",
        "skill": "s",
        "task:a": "1",
        "task:a/skill": "s",
        "task:b": "1",
        "task:b/skill": "s",
        "task:c": "1",
    }
    assert [view.tasks for view in own_views(slots, "base")] == [("a", "b"), ("c",)]
    assert own_views(slots, "base")[0].slots == {"task:a": "1", "task:a/skill": "s"}
    assert [view.tasks for view in own_views(slots, "base", {**slots, "edits": "f", "task:b": "2"})] == [("b",)]


def test_an_edit_and_a_revert_of_a_fact_score_requests_that_do_not_name_their_task(edited, tmp_path):
    rows = [{"prompt": f"{name} lives in", "completion": f" {people.HOME[name]}"} for name in people.PEOPLE[:6]]
    path = tmp_path / "found.jsonl"
    path.write_text("\n".join(map(json.dumps, [{**row, "split": s} for s in ("train", "test") for row in rows])))
    recipe = {"methods": {"per_task": {}, "color": {}}}
    edited.learn(
        "found", path, recipe=recipe, overrides={"host": "loop", "lora_r": 4, **WEAK}, gate=None, allow_leaks=True
    )

    def routed():
        table = edited.matrix(routed=True)
        return table.score[-1][table.tasks.index("found")]

    edited.revert(A)
    assert routed() is not None
    edited.revert(C, score="none")
    assert routed() is None
    write(edited, FACTS[0])
    assert routed() is not None
