"""Tasks with an adapter of their own: what later work cannot touch, what a request goes through, and how one is taken out."""

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from perdure import Workspace
from perdure.core.errors import BadInput, BadSpec, BrokenStore, Interrupted, NotFound
from perdure.core.plan import Factors, task_plan
from perdure.core.recipe import Recipe, build_recipe
from perdure.core.seams import Method
from perdure.maths.low_rank import from_tensors
from perdure.train.adapter_start import computed_once
from perdure.train.checkpoint import Keeper
from perdure.workflows import session
from perdure.workflows.learn.remember import LedgerMemory

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 4, "weight_decay": 0.1}
WORDS = {"refund": "money back", "parcel": "where is it", "invoice": "what do I owe", "tariff": "what does it cost"}
OWN = {"methods": {"per_task": {}}}
SUM = {"methods": {"incremental": {}}}


def learn(ws, tmp_path, task, recipe, **overrides):
    rows = [
        {"text": f"{WORDS[task]} {i}", "label": f"{task} {i % 2}", "split": split}
        for split, start in (("train", 0), ("test", 100))
        for i in range(start, start + 8)
    ]
    path = tmp_path / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = None if isinstance(recipe, Recipe) else {**FAST, **overrides}
    return ws.learn(task, path, recipe=recipe, overrides=settings, gate=None)


def logits(ws, task=None, at="head"):
    ids = ws.tokenizer("money back 3", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return ws.model(at, task)(input_ids=ids).logits


def slots(ws, at="head"):
    return ws.ledger.slots(ws.ledger.resolve(at))


def seen(ws, task):
    return ws.ledger.seen(ws.ledger.resolve("head"), task)


@pytest.fixture
def ws(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")


@pytest.fixture
def mixed(ws, tmp_path):
    """A shared task, an isolated one over it, a shared one that goes on, and another isolated one."""
    learn(ws, tmp_path, "refund", "naive")
    learn(ws, tmp_path, "parcel", OWN)
    learn(ws, tmp_path, "invoice", "naive")
    learn(ws, tmp_path, "tariff", OWN)
    return ws


def test_what_an_isolated_task_goes_through_never_changes_again(ws, tmp_path):
    learn(ws, tmp_path, "refund", "naive")
    done = learn(ws, tmp_path, "parcel", OWN)
    before, name, found = logits(ws, "parcel"), seen(ws, "parcel"), slots(ws)
    assert found["task:parcel/skill"] == found["skill"]
    assert not torch.equal(before, logits(ws))
    learn(ws, tmp_path, "invoice", "naive")
    learn(ws, tmp_path, "tariff", OWN)
    assert seen(ws, "parcel") == name
    assert torch.equal(logits(ws, "parcel"), before)
    assert ws.evaluate(["parcel"]).tasks["parcel"] == done.scores["parcel"]
    assert torch.equal(logits(Workspace.open(ws.ledger.root), "parcel"), before)
    assert ws.verify().ok


def test_scores_of_isolated_tasks_are_looked_up_and_the_matrix_has_them(mixed, monkeypatch):
    monkeypatch.setattr("perdure.workflows.session.measure", None)  # nothing is scored anew
    matrix = mixed.matrix()
    assert None not in matrix.score[-1]
    stage = matrix.tasks.index("parcel")
    assert len({line[stage] for line in matrix.score[2:]}) == 1


def test_a_first_isolated_task_is_what_a_shared_one_would_be(ws, tmp_path, tiny_model):
    learn(ws, tmp_path, "refund", OWN)
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32")
    learn(other, tmp_path, "refund", "naive")
    assert slots(ws)["task:refund"] == slots(other)["skill"]
    assert ws.ledger.view(ws.ledger.resolve("head")) == {}


def test_a_task_that_is_learned_again_goes_on_from_its_own_adapter(mixed, tmp_path):
    before = slots(mixed)
    learn(mixed, tmp_path, "parcel", OWN, num_train_epochs=1)
    after = slots(mixed)
    assert after["task:parcel"] != before["task:parcel"]
    assert {name: found for name, found in after.items() if name != "task:parcel"} == {
        name: found for name, found in before.items() if name != "task:parcel"
    }


def test_reverting_an_isolated_task_leaves_every_other_view_as_it_was(mixed):
    others = {task: (seen(mixed, task), logits(mixed, task)) for task in ("refund", "invoice", "tariff", None)}
    done = mixed.revert("parcel")
    assert not [name for name in slots(mixed) if name.startswith("task:parcel")]
    assert set(done.scores) == {"invoice", "refund", "tariff"}
    assert done.scores == done.before
    for task, (name, before) in others.items():
        assert seen(mixed, task) == name
        assert torch.equal(logits(mixed, task), before)
    assert "parcel" not in mixed.matrix().tasks
    again = mixed.revert("parcel")
    assert (again.entry, again.already) == (done.entry, True)
    assert "parcel" not in mixed.evaluate().tasks
    mixed.rollback("head~1")
    assert "task:parcel" in slots(mixed)


def test_reverting_one_of_a_sum_leaves_exactly_the_sum_of_the_others(ws, tmp_path):
    recipe = {"methods": {"incremental": {}, "replay": {}}}
    for task in ("refund", "parcel", "invoice"):
        learn(ws, tmp_path, task, recipe)
    assert [name for name in slots(ws) if name.startswith("sum:")] == ["sum:invoice", "sum:parcel", "sum:refund"]
    kept = {name: found for name, found in slots(ws).items() if name != "sum:parcel"}
    ws.session.load_slots(kept)
    ids = ws.tokenizer("money back 3", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = ws.runtime.model(input_ids=ids).logits
    done = ws.revert("parcel")
    assert slots(ws) == kept
    assert torch.equal(logits(ws), expected)
    assert done.rows > 0
    assert {row.task for row in LedgerMemory.at(ws.ledger, ws.ledger.resolve("head")).rows} == {"refund", "invoice"}
    assert ws.verify().ok


def test_adapters_of_a_sum_stay_as_they_were_learned(ws, tmp_path):
    learn(ws, tmp_path, "refund", SUM)
    first = slots(ws)["sum:refund"]
    learn(ws, tmp_path, "parcel", {"methods": {"o_lora": {"exact": True}}})
    assert slots(ws)["sum:refund"] == first
    learn(ws, tmp_path, "invoice", "naive")  # a shared adapter over the sum
    assert slots(ws)["sum:refund"] == first
    old, new = (ws.ledger.objects.get(slots(ws)[name]) for name in ("sum:refund", "sum:parcel"))
    overlap = [
        ((new[name] @ old[name].T).norm() / (new[name].norm() * old[name].norm())).item()
        for name in new
        if name.endswith(".down")
    ]
    assert max(overlap) < 1e-5


def test_a_task_in_shared_weights_is_not_taken_out_and_the_choices_are_named(mixed):
    with pytest.raises(
        BadInput, match=r"task refund was learned in weights that other tasks go through too .*rollback"
    ):
        mixed.revert("refund")
    assert "task:parcel" in slots(mixed)


def test_a_task_whose_shared_weights_were_begun_anew_is_not_taken_out_and_the_reason_is_true(mixed, tmp_path):
    refund = next(e for e in mixed.ledger.ancestors(mixed.ledger.resolve("head")) if e.task == "refund")
    tariff = learn(mixed, tmp_path, "tariff", "naive", start="base").entry
    name = refund.id[:12]
    words = (
        rf"\(entry {name}\). Entry {tariff[:12]} \(learn tariff\) began these anew .*: head has what {name} trained in "
    )
    with pytest.raises(BadInput, match=rf"{words}task:parcel/skill alone.*rollback {name}~1"):
        mixed.revert("refund")
    with pytest.raises(BadInput, match="in weights that other tasks go through too"):
        mixed.revert("tariff")


def test_starting_from_the_base_leaves_isolated_tasks_alone(mixed, tmp_path):
    before = logits(mixed, "parcel")
    learn(mixed, tmp_path, "refund", "naive", start="base")
    assert torch.equal(logits(mixed, "parcel"), before)


def test_an_isolated_task_that_starts_from_the_base_begins_its_own_adapter_anew_and_leaves_what_is_shared(
    mixed, tmp_path, tiny_model
):
    before = slots(mixed)
    assert "task:parcel/skill" in before
    learn(mixed, tmp_path, "parcel", OWN, start="base")
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32")
    learn(other, tmp_path, "parcel", OWN)
    gone = {"task:parcel", "task:parcel/skill"}
    assert slots(mixed) == {name: found for name, found in before.items() if name not in gone} | slots(other)
    assert seen(mixed, "parcel") == seen(other, "parcel")


def test_a_task_on_the_base_model_alone_is_a_first_one_for_every_method(ws, tmp_path):
    learn(ws, tmp_path, "refund", OWN)
    learn(ws, tmp_path, "parcel", OWN)
    plain = slots(ws)
    ws.rollback("head~1")
    methods = {"per_task": {}, "lwf": {}, "feature_distill": {}, "wise_ft": {}}
    told = learn(ws, tmp_path, "parcel", {"methods": methods}).warnings
    assert slots(ws) == plain
    assert any("lwf had no effect" in said and "on the base model alone" in said for said in told)
    learn(ws, tmp_path, "invoice", {"methods": {"lwf": {}}})  # the first in shared weights
    assert not any("lwf had no effect" in said for said in learn(ws, tmp_path, "tariff", {"methods": methods}).warnings)


@pytest.mark.parametrize("recipe", ["naive", OWN, SUM, "full"])
def test_what_is_trained_on_is_loaded_once(ws, tmp_path, recipe, monkeypatch):
    learn(ws, tmp_path, "refund", "full" if recipe == "full" else "naive")
    unnamed, load = [], type(ws.runtime).load

    def watched(self, found, state=None):
        unnamed.extend([sorted(found)] if state is None else [])
        load(self, found, state)

    monkeypatch.setattr(type(ws.runtime), "load", watched)
    learn(ws, tmp_path, "parcel", recipe)
    assert unnamed == [["dense"] if recipe == "full" else ["skill"]]


def test_nothing_looks_ahead_the_first_entries_do_not_depend_on_how_many_follow(ws, tmp_path, tiny_model):
    first = [learn(ws, tmp_path, task, OWN).entry for task in ("refund", "parcel", "invoice")]
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32")
    assert [learn(other, tmp_path, task, OWN).entry for task in ("refund", "parcel")] == first[:2]


def test_an_export_by_task_is_the_model_that_was_scored(mixed, tmp_path, tiny_model):
    for task in ("parcel", None):
        folder = tmp_path / f"export-{task}"
        told = mixed.export(folder, task=task)
        assert told.task == task
        served = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), folder
        )
        ids = mixed.tokenizer("money back 3", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            torch.testing.assert_close(served(input_ids=ids).logits, logits(mixed, task), rtol=1e-4, atol=1e-5)
    with pytest.raises(NotFound, match="no task 'none' is known at head"):
        mixed.export(tmp_path / "none", task="none")


def test_where_nothing_is_shared_the_export_names_the_option(ws, tmp_path):
    learn(ws, tmp_path, "refund", OWN)
    with pytest.raises(
        BadInput,
        match=r"every task has an adapter of its own, and nothing is shared; export one with --task, all .*--all, .*merge",
    ):
        ws.export(tmp_path / "out")


def test_predict_goes_through_the_adapter_of_the_task(mixed, monkeypatch):
    loaded, load = [], type(mixed.session).load

    def watched(self, entry, task=None):
        loaded.append(task)
        load(self, entry, task)

    monkeypatch.setattr(type(mixed.session), "load", watched)
    mixed.predict(["money back 3"], task="parcel")
    mixed.predict(["money back 3"], task="refund")
    assert loaded == ["parcel", "refund"]
    assert mixed.runtime.loaded == seen(mixed, "refund") != seen(mixed, "parcel")


def test_a_text_without_a_task_goes_through_what_all_tasks_share(mixed):
    from perdure.workflows.predict.predict import predict
    from perdure.workflows.predict.prompt import Prompt
    from perdure.workflows.predict.request import Request

    found = predict(mixed.session, [Prompt("money back 3")], Request(max_new_tokens=2))
    assert mixed.runtime.loaded == seen(mixed, None)
    assert found.answers[0].task is None
    assert "--task NAME takes a task's template and its own adapter (refund, parcel" in found.how
    own = predict(mixed.session, [Prompt("money back 3")], Request("parcel", max_new_tokens=2))
    assert own.how == "prompted in the template of task parcel and with its own adapter"


def test_another_rank_is_refused_for_a_slot_that_goes_on_and_free_for_a_fresh_one(mixed, tmp_path):
    with pytest.raises(BadSpec, match="differ from the adapter that head goes on training"):
        learn(mixed, tmp_path, "parcel", OWN, lora_r=2)
    learn(mixed, tmp_path, "refund", OWN, lora_r=2)
    assert slots(mixed)["task:refund"]


def test_gc_keeps_the_scores_and_objects_of_every_view(mixed):
    scores = mixed.matrix().score
    mixed.gc()
    assert mixed.matrix().score == scores
    assert mixed.verify().ok


def test_a_task_that_is_learned_in_shared_weights_again_gives_up_its_own_adapter(ws, tmp_path):
    learn(ws, tmp_path, "refund", OWN)
    before = seen(ws, "refund")
    done = learn(ws, tmp_path, "refund", "naive")
    assert any("refund had an adapter of its own" in said for said in done.warnings)
    assert list(slots(ws)) == ["skill"]
    assert seen(ws, "refund") == seen(ws, None) != before
    with pytest.raises(BadInput, match="weights that other tasks go through too"):
        ws.revert("refund")


def test_a_task_that_was_isolated_first_and_summed_later_can_be_taken_out(ws, tmp_path):
    learn(ws, tmp_path, "refund", OWN)
    learn(ws, tmp_path, "refund", SUM)
    assert list(slots(ws)) == ["sum:refund"]
    ws.revert("refund")
    assert slots(ws) == {}


def test_an_adapter_on_other_modules_than_what_lies_under_it_is_stored(ws, tmp_path):
    learn(ws, tmp_path, "refund", "naive", lora_target_modules=["q_proj"])
    learn(ws, tmp_path, "parcel", OWN, lora_target_modules=["q_proj", "v_proj"])
    modules = {name.split(".")[-2] for name in ws.ledger.objects.get(slots(ws)["task:parcel"])}
    assert modules == {"q_proj", "v_proj"}


def test_dense_weights_lie_under_what_is_learned_on_them(ws, tmp_path):
    learn(ws, tmp_path, "invoice", OWN)
    isolated = logits(ws, "invoice")
    learn(ws, tmp_path, "refund", "full")
    assert torch.equal(logits(ws, "invoice"), isolated)
    dense, still = logits(ws), {"learning_rate": 1e-12}
    learn(ws, tmp_path, "parcel", OWN, **still)
    torch.testing.assert_close(logits(ws, "parcel"), dense)
    assert slots(ws)["task:parcel/dense"] == slots(ws)["dense"]
    with pytest.raises(BadInput, match="trained every weight"):
        ws.export(tmp_path / "out", task="parcel")
    learn(ws, tmp_path, "tariff", SUM, **still)
    learn(ws, tmp_path, "refund", "naive", **still)
    torch.testing.assert_close(logits(ws), dense)
    torch.testing.assert_close(logits(ws, "parcel"), dense)


def test_a_method_finds_its_state_again_when_adapters_came_to_lie_under_the_shared_one(ws, tmp_path):
    learn(ws, tmp_path, "refund", {"methods": {"ewc": {}}})
    first = ws.ledger.objects.get(ws.ledger.resolve("head").state)
    learn(ws, tmp_path, "parcel", SUM)
    learn(ws, tmp_path, "invoice", {"methods": {"ewc": {}}})
    assert ws.ledger.objects.get(ws.ledger.resolve("head").state).keys() == first.keys()


def test_a_task_is_found_by_its_name_before_entries_that_begin_like_it(ws, tmp_path, monkeypatch):
    learn(ws, tmp_path, "refund", OWN)
    resolve = type(ws.ledger).resolve

    def several(self, ref):
        if ref == "refund":
            raise BadInput("several entries begin like this")
        return resolve(self, ref)

    monkeypatch.setattr(type(ws.ledger), "resolve", several)
    assert ws.revert("refund").task == "refund"


# --- what an adapter starts from


@dataclass(frozen=True)
class Spectral(Method):
    """Starts A from the principal rows of what lies under it; only B trains. Signs are free, as those of a decomposition are."""

    name: ClassVar[str] = "spectral"
    family: ClassVar[str] = "test"
    seams: ClassVar[tuple[str, ...]] = ("adapter",)
    source: ClassVar[str] = "arXiv"
    carries: ClassVar[bool] = False
    calls: ClassVar[list[str]] = []

    def adapter(self, bare, state):
        plan = task_plan(bare)
        return replace(plan, start=partial(self.start, bare))

    def start(self, bare):
        self.calls.append(bare.task)
        factors = {}
        for module, patch in from_tensors(bare.slots["skill"]).items():
            _, sizes, rows = torch.linalg.svd(patch.delta, full_matrices=False)
            down = (sizes[: patch.rank, None] * rows[: patch.rank]) * (-1) ** len(self.calls)
            factors[module] = Factors(down, torch.zeros_like(patch.up), trains="up")
        return factors


@pytest.mark.parametrize("host", ["loop", "transformers"])
def test_a_start_that_was_computed_from_data_is_the_same_where_a_learn_goes_on(
    ws, tmp_path, tiny_model, monkeypatch, host
):
    settings = {**FAST, "host": host, "num_train_epochs": 4}
    recipe = build_recipe({**settings, "methods": {"spectral": {}}}, {"spectral": Spectral})
    spaces = [ws, Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32")]
    for space in spaces:
        learn(space, tmp_path, "refund", "naive")
    Spectral.calls.clear()
    whole = learn(spaces[0], tmp_path, "parcel", recipe)
    assert Spectral.calls == ["parcel"]
    stored = ws.ledger.objects.get(slots(ws)["task:parcel"])
    old = ws.ledger.objects.get(slots(ws)["skill"])
    for name, value in stored.items():
        if name.endswith(".down"):  # frozen, and in the slot as it was computed
            assert torch.linalg.matrix_rank(torch.cat([value, old[name]]), rtol=1e-4) == len(value)

    Spectral.calls.clear()
    after, stopped = Keeper.after, []

    def stop(keeper, update, optimizer):
        keeper.stop = (lambda: "SIGTERM") if update == 2 and not stopped else (lambda: None)
        stopped.extend([update] if update == 2 else [])
        after(keeper, update, optimizer)

    monkeypatch.setattr(Keeper, "after", stop)
    with pytest.raises(Interrupted):
        learn(spaces[1], tmp_path, "parcel", recipe)
    again = Workspace.open(spaces[1].ledger.root)
    assert learn(again, tmp_path, "parcel", recipe).entry == whole.entry
    assert Spectral.calls == ["parcel"]
    assert not list((again.ledger.root / "runs").iterdir())


def test_a_start_that_cannot_be_read_is_named_with_its_folder(tmp_path):
    path = tmp_path / "run" / "start.safetensors"
    made = {"a.b": Factors(torch.ones(1, 2), torch.zeros(3, 1), trains="down", effects={"outside": 0.5})}
    first = computed_once(path, lambda: made)()
    again = computed_once(path, lambda: {})()
    for found in (first["a.b"], again["a.b"]):
        assert torch.equal(found.down, made["a.b"].down)
        assert torch.equal(found.up, made["a.b"].up)
        assert found.trains == "down"
        assert found.effects == {"outside": 0.5}
    path.write_bytes(b"broken")
    with pytest.raises(BrokenStore, match=r"start\.safetensors.*delete its folder"):
        computed_once(path, lambda: made)()


# --- what a task costs


def test_a_task_of_its_own_costs_what_the_second_one_did_however_many_there_are(ws, tmp_path, monkeypatch):
    learn(ws, tmp_path, "refund", OWN)
    work, written, forward, measure = [], [], LlamaForCausalLM.forward, session.measure

    def counted(self, *args, **more):
        work[-1] += ["update"] * self.training
        return forward(self, *args, **more)

    def scored(*args, **more):
        work[-1].append("score")
        return measure(*args, **more)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    monkeypatch.setattr(session, "measure", scored)
    for task in ("parcel", "invoice", "tariff"):
        work.append([])
        entry = learn(ws, tmp_path, task, OWN).entry
        found = [ws.ledger.objects.get(value) for value in ws.ledger.entry(entry).slots.values()]
        written.append([value.nbytes for tensors in found for value in tensors.values()])
    assert work == work[:1] * 3
    assert (work[0].count("score"), work[0][0], work[0][-1]) == (
        2,
        "score",
        "score",
    )  # before, when it is known to none, and after
    assert "update" in work[0]
    assert written == written[:1] * 3
