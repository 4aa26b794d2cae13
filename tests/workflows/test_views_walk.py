"""Learns in every kind of slot, reverts, rollbacks and edits in any order: what a step does not touch keeps its bits."""

import json

import numpy as np
import pytest
import torch

import people
from edited import SAID, SPEC, moved
from perdure import Workspace
from perdure.core.errors import BadInput, BadSpec
from perdure.core.slots import EDITS, is_isolated, slots_of_task, sum_slot

FAST = {"num_train_epochs": 1, "host": "loop", "lora_r": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-2}
OWN = {"per_task": {}}
ON_BASE = {"per_task": {"over": "base"}}
SUM = {"incremental": {}}
EXACT = {"o_lora": {"exact": True}}
ROUTED = {"color": {}}  # beside every isolated task, as NEAREST needs one that was measured
NEAREST = {"per_task": {"start": "nearest"}, **ROUTED}
RECIPES = (OWN | ROUTED, ON_BASE | ROUTED, NEAREST, SUM, EXACT, {"n_lora": {}}, {"slao": {}}, {})
FREE = ({"inf_lora": {"energy": 0.3}}, {"osf": {"on": "sum", "kept": 0.2}}, SUM, OWN)
TASKS = ("a", "b", "c", "d")


class Walk:
    """A workspace, and what every view said when it was first seen."""

    recipes = RECIPES

    def __init__(self, ws, folder, seed=0):
        self.ws, self.folder, self.draw = ws, folder, np.random.default_rng(seed)
        self.bits, self.entries, self.log = {}, {}, []
        self.check(None)

    @property
    def head(self):
        return self.ws.ledger.resolve("head")

    def plain(self):
        """Return the slots of each task's view at head, and of what all share, without edits."""
        views = {task: self.ws.ledger.view(self.head, task) for task in (*self.head.tasks, None)}
        return {task: {name: h for name, h in view.items() if name != EDITS} for task, view in views.items()}

    def check(self, untouched, before=None):
        """Assert that views which were named before are what they were, and that those of `untouched` still are."""
        now, named = self.plain(), self.ws.ledger.seen_by(self.head, [*self.head.tasks, None])
        for task in untouched or ():
            assert now[task] == before[task], (task, self.log)
        assert self.entries.setdefault(self.head.id, named) == named, self.log
        for task, state in named.items():
            found = self.logits(task)
            assert torch.equal(self.bits.setdefault(state, found), found), (task, self.log)

    @torch.no_grad()
    def logits(self, task):
        prompts = [f"{name} lives in" for name in people.PEOPLE[:4]]
        return self.ws.model("head", task)(**self.ws.tokenizer(prompts, return_tensors="pt")).logits

    def learn(self, task, methods, **overrides):
        """Learn some rows of a task; of other tasks those with adapters of their own stay as they are, or all do.

        An adapter of a sum that exact would cut is not gone on with, and head stays.
        """
        self.log.append(("learn", task, methods, overrides))
        before, number = self.plain(), len(self.log)
        city = people.CITIES[number % 4]
        who = [people.PEOPLE[(4 * TASKS.index(task) + i) % 16] for i in range(3)]
        rows = [
            {"prompt": f"{name} is at home in", "completion": f" {city}", "split": s}
            for s in ("train", "test")
            for name in who
        ]
        path = self.folder / f"{number}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        given, head, known = {**FAST, **overrides}, self.head, self.ws.ledger.slots(self.head)
        try:
            self.ws.learn(task, path, recipe={"methods": methods}, overrides=given, gate=None, allow_leaks=True)
        except BadSpec:
            assert (methods, sum_slot(task) in known, self.head) == (EXACT, True, head), self.log
            return
        shared = "per_task" not in methods
        apart = {task, *(other for other in before if shared and not self.isolated(other))}
        assert self.isolated(task) != shared
        self.check(before.keys() - apart, before)

    def isolated(self, task):
        return is_isolated(self.ws.ledger.slots(self.head), task)

    def revert(self, task):
        """Take a task out, or be refused and left alone."""
        self.log.append(("revert", task))
        before, head, slots = self.plain(), self.head, self.ws.ledger.slots(self.head)
        if not self.separable(task):
            with pytest.raises(BadInput, match="was learned in weights that other tasks go through too"):
                self.ws.revert(task)
            assert self.head == head
            return False
        self.ws.revert(task)
        gone = set(slots_of_task(slots, task))
        kept = {name: found for name, found in slots.items() if name not in gone | {EDITS}}
        assert {n: f for n, f in self.ws.ledger.slots(self.head).items() if n != EDITS} == kept, self.log
        assert task not in self.head.tasks
        self.check(
            {other for other in before if other != task and (other in (None, *self.head.tasks))} - self.of_sum(gone),
            before,
        )
        return True

    def separable(self, task):
        """Say whether no learn of a task, in the line of head, wrote a slot that others share."""
        learns = [
            entry for entry in self.ws.ledger.ancestors(self.head) if entry.kind == "learn" and entry.task == task
        ]
        return not any(entry.slots.get("skill") for entry in learns)

    def of_sum(self, gone):
        """Return the views that lose an adapter of a sum."""
        summed = any(name.startswith("sum:") for name in gone)
        return {task for task in (*self.head.tasks, None) if summed and not self.isolated(task)}

    def rollback(self, entry):
        self.log.append(("rollback", entry))
        self.ws.rollback(entry)
        self.check(None)

    def edit(self, name):
        self.log.append(("edit", name))
        before = self.plain()
        self.ws.edit([moved(name)], spec=SPEC, gate=None if self.draw.random() < 0.5 else SAID)
        self.check(before.keys(), before)

    def step(self):
        """Do something at random."""
        what = self.draw.choice(["learn", "learn", "learn", "revert", "rollback", "edit"])
        known = sorted(self.head.tasks)
        if what == "revert" and known:
            self.revert(str(self.draw.choice(known)))
        elif what == "rollback" and len(self.entries) > 1:
            self.rollback(str(self.draw.choice(sorted(self.entries))))
        elif what == "edit":
            self.edit(str(self.draw.choice(people.PEOPLE)))
        else:
            start = "base" if self.draw.random() < 0.2 else "head"
            self.learn(
                str(self.draw.choice(TASKS)), self.recipes[int(self.draw.integers(len(self.recipes)))], start=start
            )

    def end(self):
        """Assert that the store is sound, and that another process finds the same."""
        assert self.ws.verify().ok
        matrix = self.ws.matrix()
        assert set(matrix.tasks) == set(self.head.tasks)
        self.ws = Workspace.open(self.ws.ledger.root)
        self.check(None)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_before_and_after_what_a_step_does_not_touch_keeps_its_bits(ws, tmp_path, seed):
    walk = Walk(ws, tmp_path, seed)
    for _ in range(12):
        walk.step()
    walk.end()


class NewTasks(Walk):
    """Learns every task once after it is unknown: osf refuses to go on under adapters that were learned without it."""

    recipes = FREE

    def learn(self, task, methods, **overrides):
        if task in self.head.tasks:
            return self.revert(task)
        return super().learn(task, methods, **overrides)


def test_adapters_in_free_directions_go_through_the_same_walk(ws, tmp_path):
    walk = NewTasks(ws, tmp_path, 7)
    for _ in range(14):
        walk.step()
    assert {"inf_lora", "osf"} <= {name for what, *given in walk.log if what == "learn" for name in given[1]}
    walk.end()


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_tasks_of_a_sum_are_taken_out_in_any_order_and_one_learned_over_them_keeps_what_lies_under_it(
    ws, tmp_path, order
):
    walk = Walk(ws, tmp_path)
    walk.learn("a", SUM)
    walk.learn("b", EXACT)
    walk.learn("c", OWN)
    both = {sum_slot("a"), sum_slot("b")}
    assert {name.partition("/")[2] for name in ws.ledger.view(walk.head, "c")} == both | {""}
    for task in order:
        done = ws.revert(task)
        assert [said for said in done.warnings if f"c was learned on top of the adapter of {task} and keeps it" in said]
    assert list(ws.ledger.slots(walk.head)) == ["task:c", "task:c/sum:a", "task:c/sum:b"]
    walk.check(None)
    walk.learn("a", SUM)  # as a first task again
    assert walk.revert("c")
    assert walk.revert("a")
    assert ws.ledger.slots(walk.head) == {}


def test_a_task_that_was_taken_out_and_is_learned_again_is_what_it_was(ws, tmp_path):
    walk = Walk(ws, tmp_path)
    walk.learn("a", OWN)
    first = ws.ledger.slots(walk.head)
    walk.revert("a")
    walk.log = walk.log[:0]  # the rows of the first learn again
    walk.learn("a", OWN)
    assert ws.ledger.slots(walk.head) == first
