"""What verbs do after a merge follows from what the slots hold, whatever the entries before called it."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from perdure import Workspace
from perdure.cli.main import app
from perdure.core.errors import BadInput
from perdure.ledger.records.learn import Repair
from perdure.maths.low_rank import from_tensors
from perdure.workflows.learn.influence import influence

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2, "learning_rate": 0.01}
WORDS = {"refund": "money back", "parcel": "where is it", "invoice": "what do I owe"}
OWN, SUM = {"per_task": {}}, {"incremental": {}}
COPY, NEAREST = {"per_task": {"start": "shared"}}, {"per_task": {"start": "nearest"}, "color": {}}


class Stream:
    """A workspace, and learns of tiny tasks in it."""

    def __init__(self, ws, folder):
        self.ws, self.folder = ws, folder

    def learn(self, task, methods, **overrides):
        rows = [
            {"text": f"{WORDS[task]} {i}", "label": f"{task} {i % 2}", "split": split}
            for split, start in (("train", 0), ("test", 100))
            for i in range(start, start + 8)
        ]
        path = self.folder / f"{task}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return self.ws.learn(task, path, recipe={"methods": methods}, overrides={**FAST, **overrides}, gate=None)

    @property
    def head(self):
        return self.ws.ledger.resolve("head")

    @property
    def slots(self):
        return self.ws.ledger.slots(self.head)

    def delta(self, name):
        """Return the updates in a slot, by module."""
        return {
            module: patch.delta for module, patch in from_tensors(self.ws.ledger.objects.get(self.slots[name])).items()
        }

    def logits(self, task=None):
        ids = self.ws.tokenizer("money back 3", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return self.ws.model("head", task)(input_ids=ids).logits


@pytest.fixture
def stream(tiny_model, tmp_path):
    return Stream(Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards="none"), tmp_path)


def close(found, *wanted):
    for module, delta in found.items():
        torch.testing.assert_close(delta, sum(each[module] for each in wanted), atol=1e-5, rtol=1e-4)


def test_an_adapter_of_a_sum_that_a_merge_of_others_took_in_is_not_taken_out_alone(stream):
    ws = stream.ws
    stream.learn("refund", SUM)
    stream.learn("parcel", OWN)
    before, both = stream.head, [stream.delta("sum:refund"), stream.delta("task:parcel")]
    with pytest.raises(
        BadInput, match="for refund, whose adapter in the sum is added as it is; weights are for parcel"
    ):
        ws.merge(8, weights={"refund": 2.0}, gate=None)
    merged = ws.merge(8, gate=None)
    assert merged.tasks == ("parcel", "refund")
    assert merged.kept == ("parcel",)
    assert set(stream.slots) == {"skill", "task:parcel", "task:parcel/sum:refund"}
    close(stream.delta("skill"), *both)
    with pytest.raises(BadInput, match=rf"refund was merged with others .*'perdure rollback {merged.entry[:12]}~1'"):
        ws.revert("refund")
    assert stream.head.id == merged.entry
    assert ws.revert("parcel").removed == ("task:parcel", "task:parcel/sum:refund")
    ws.rollback(f"{merged.entry}~1")
    assert stream.head.id == before.id
    done = ws.revert("refund")
    assert done.removed == ("sum:refund",)
    assert ["parcel was learned on top of the adapter of refund" in text for text in done.warnings] == [True]


def test_what_a_task_learns_after_its_adapter_was_dropped_is_merged_reverted_and_rolled_back(stream):
    ws = stream.ws
    for task in ("refund", "parcel"):
        stream.learn(task, OWN)
    first = ws.merge(4, drop=True, gate=None)
    stream.learn("refund", OWN)
    assert set(stream.slots) == {"skill", "task:refund", "task:refund/skill"}
    with pytest.raises(BadInput, match="no merge in force has the adapter"):
        ws.merge(drop=True, gate=None)
    with pytest.raises(BadInput, match=r"refund is in no merge, and to drop it would lose what it learned"):
        ws.merge(drop=True, tasks=["refund"], gate=None)
    before, parts = stream.logits("refund"), [stream.delta("skill"), stream.delta("task:refund")]
    second = ws.merge(8, gate=None)
    assert (second.tasks, second.kept, second.warnings) == (("refund",), ("refund",), ())
    close(stream.delta("skill"), *parts)
    torch.testing.assert_close(stream.logits(), before, atol=1e-5, rtol=1e-5)
    with pytest.raises(BadInput, match=rf"refund is in the shared adapter already, through merge {second.entry[:12]};"):
        ws.merge(8, gate=None)
    done = ws.revert("refund")
    assert done.removed == ("task:refund", "task:refund/skill")
    assert [text for text in done.warnings if f"'perdure rollback {first.entry[:12]}~1', revert refund there" in text]
    ws.rollback(f"{first.entry}~1")  # where that works
    assert ws.revert("refund").warnings == ()
    assert set(stream.slots) == {"task:parcel"}
    assert ws.verify().ok


@pytest.mark.parametrize("taken_out", [True, False])
def test_an_adapter_that_began_over_a_merge_is_in_none(stream, taken_out):
    """Of a task that was one of the merged sum, or whose merged adapter was taken out."""
    ws = stream.ws
    for task in ("refund", "parcel"):
        stream.learn(task, OWN if taken_out else SUM)
    ws.merge(4, gate=None)
    if taken_out:
        ws.revert("refund")
    stream.learn("refund", OWN)
    parts = [stream.delta("skill"), stream.delta("task:refund")]
    stream.learn("refund", OWN)  # and goes on
    parts[1] = stream.delta("task:refund")
    assert ws.merge(8, tasks=["refund"], drop=True, gate=None).tasks == ("refund",)
    close(stream.delta("skill"), *parts)


def test_a_merge_twice_of_a_sum_names_the_first_before_which_the_task_comes_out(stream):
    ws = stream.ws
    for task in ("refund", "parcel"):
        stream.learn(task, SUM)
    first = ws.merge(4, gate=None)
    stream.learn("refund", SUM)
    told = CliRunner().invoke(app, ["memory", "delete", "--task", "refund", "-w", str(ws.ledger.root)]).output
    assert "stays in weights that other tasks go through" in told
    assert "in sum:refund, and a revert cannot take it out" in told
    ws.merge(8, gate=None)
    with pytest.raises(BadInput, match=rf"refund was merged .*'perdure rollback {first.entry[:12]}~1'"):
        ws.revert("refund")


def test_a_revert_names_the_task_that_keeps_a_merged_adapter_under_its_own_when_the_shared_one_was_begun_anew(stream):
    ws = stream.ws
    stream.learn("refund", OWN)
    ws.merge(4, gate=None)
    stream.learn("parcel", OWN)
    stream.learn("invoice", {}, start="base")
    done = ws.revert("refund")
    assert ["parcel was learned on top of the adapter of refund and keeps it" in text for text in done.warnings] == [
        True
    ]
    assert influence(ws.ledger, stream.head, "refund").holding == ("task:parcel/skill",)


def test_a_revert_names_a_copy_of_an_adapter_that_was_learned_again_since(stream):
    for task, methods in (("refund", OWN | {"color": {}}), ("parcel", NEAREST), ("refund", OWN | {"color": {}})):
        stream.learn(task, methods)
    told = [text for text in stream.ws.revert("refund").warnings if "may have begun as a copy of its adapter" in text]
    assert [text.partition(" ")[0] for text in told] == ["parcel"]


def test_a_copied_adapter_is_taken_off_only_while_all_tasks_share_it(stream):
    stream.learn("refund", {})
    stream.learn("parcel", COPY)
    stream.learn("invoice", {}, start="base")
    parts = [stream.delta("skill"), stream.delta("task:parcel")]
    with pytest.raises(BadInput, match=r"began these anew .* head has what \w+ trained in task:parcel alone"):
        stream.ws.revert("refund")
    stream.ws.merge(8, gate=None)
    close(stream.delta("skill"), *parts)


def test_what_lay_under_a_dropped_adapter_is_in_no_merge_that_did_not_read_it(stream):
    stream.learn("refund", SUM)
    stream.learn("parcel", OWN)
    stream.ws.revert("refund")
    stream.ws.merge(4, drop=True, gate=None)
    assert influence(stream.ws.ledger, stream.head, "refund").others == ()


@pytest.fixture
def copied(stream):
    """A task with an adapter of its own, and one whose adapter began as a copy of that."""
    stream.learn("refund", OWN | {"color": {}})
    began = stream.delta("task:refund")
    stream.learn("parcel", NEAREST)
    return stream, began


@pytest.mark.parametrize("again", [False, True])
def test_a_sum_has_the_adapter_of_the_nearest_task_once(copied, again):
    stream, began = copied
    if again:
        stream.learn("refund", OWN | {"color": {}})
    parts = [stream.delta("task:refund"), stream.delta("task:parcel")]
    off = {module: -delta for module, delta in began.items()}
    before = stream.logits("parcel")
    stream.ws.merge(12, gate=None)
    close(stream.delta("skill"), *parts, off)
    if not again:
        torch.testing.assert_close(stream.logits(), before, atol=1e-5, rtol=1e-5)  # all that both learned
    stream.ws.rollback("head~1")
    stream.ws.merge(12, how="average", gate=None)
    close({module: 2 * delta for module, delta in stream.delta("skill").items()}, *parts)


def test_a_copy_of_a_task_that_is_in_no_merge_stays_whole_and_of_one_that_was_merged_before_does_not(copied):
    stream, began = copied
    own, first = stream.delta("task:parcel"), stream.delta("task:refund")
    off = {module: -delta for module, delta in began.items()}
    stream.ws.merge(12, tasks=["parcel"], gate=None)
    close(stream.delta("skill"), own)
    stream.ws.rollback("head~1")
    stream.ws.merge(12, tasks=["refund"], gate=None)
    stream.ws.merge(12, tasks=["parcel"], gate=None)
    close(stream.delta("skill"), first, own, off)
    stream.ws.rollback("head~2")
    stream.ws.revert("refund")
    stream.learn("refund", OWN | {"color": {}}, learning_rate=0.02)  # another adapter, of which nothing is a copy
    fresh = stream.delta("task:refund")
    stream.ws.merge(12, gate=None)
    close(stream.delta("skill"), fresh, own)


def test_of_a_copy_that_an_older_perdure_learned_the_merge_says_that_it_may_be_added_twice(copied, monkeypatch):
    stream, _ = copied
    real = type(stream.ws.ledger).note

    def note(ledger, entry, key, kind):
        found = real(ledger, entry, key, kind)
        return replace(found, copied=None) if key == "record" else found

    monkeypatch.setattr(type(stream.ws.ledger), "note", note)
    told = stream.ws.merge(8, gate=None).warnings
    assert ["parcel began as a copy of another task's adapter (start: nearest)" in text for text in told] == [True]


def test_of_a_copy_whose_learn_was_scaled_down_the_same_share_is_taken_off(copied, monkeypatch):
    stream, began = copied
    parts = [stream.delta("task:refund"), stream.delta("task:parcel")]
    real = type(stream.ws.ledger).note

    def note(ledger, entry, key, kind):
        found = real(ledger, entry, key, kind)
        return replace(found, repair=Repair(0.25, ())) if key == "record" else found

    monkeypatch.setattr(type(stream.ws.ledger), "note", note)
    stream.ws.merge(12, gate=None)
    close(stream.delta("skill"), *parts, {module: -0.25 * delta for module, delta in began.items()})
