"""Learn through a workspace: memory, teacher columns, recipes that start over, and rollback to the bit."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from cautioned import without_size
from perdure import Gate, Workspace
from perdure.cli.main import app
from perdure.core.errors import BadInput, BadSpec, Interrupted
from perdure.ledger.records import Heartbeat
from perdure.methods.registry import load_recipe
from perdure.train.learner import Learner
from perdure.workflows.learn.effects import faint
from perdure.workflows.learn.remember import LedgerMemory, states_at
from perdure.workflows.predict.predict import predict
from perdure.workflows.predict.prompt import prompt_of
from perdure.workflows.predict.request import Request

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}
WORDS = {"refund": "money back", "parcel": "where is it", "invoice": "what do I owe"}


def data(path, task, label, n=8):
    rows = [
        {"text": f"{WORDS[task]} {i} {label}", "label": f"{task} {label if i % 2 else 'other'}", "split": split}
        for split, start in (("train", 0), ("test", 100))
        for i in range(start, start + n)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def ws(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")


def learn(ws, tmp_path, task, recipe="dual_replay", label="late", **overrides):
    path = data(tmp_path / f"{task}-{label}.jsonl", task, label)
    return ws.learn(task, path, recipe=recipe, overrides={**FAST, **overrides}, gate=None)


def logits(ws, at="head"):
    ids = ws.tokenizer("money back 3 late", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return ws.model(at)(input_ids=ids).logits


def memory(ws, at="head"):
    return LedgerMemory.at(ws.ledger, ws.ledger.resolve(at))


def items(memory):
    """The items of a memory with their rows."""
    return [(remembered.item, remembered.row) for remembered in memory.rows]


def test_a_rolled_back_head_has_the_logits_and_the_memory_it_had_then(ws, tmp_path):
    learn(ws, tmp_path, "refund")
    then, kept = logits(ws), [item for item, _ in items(memory(ws))]
    learn(ws, tmp_path, "parcel")
    assert not torch.equal(logits(ws), then)
    ws.rollback("head~1")
    assert torch.equal(logits(ws), then)
    assert [item for item, _ in items(memory(ws))] == kept
    assert torch.equal(logits(Workspace.open(ws.ledger.root)), then)  # another process would see the same


def test_the_same_work_gives_the_same_entry(ws, tmp_path, tiny_model):
    first = learn(ws, tmp_path, "refund").entry
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32")
    assert learn(other, tmp_path, "refund").entry == first


def test_memory_keeps_per_label_rows_of_train_parts_only(ws, tmp_path):
    learn(ws, tmp_path, "refund", **{"memory_per_label": 1})
    learn(ws, tmp_path, "parcel", **{"memory_per_label": 1})
    rows = [row for _, row in items(memory(ws))]
    assert sorted((row.task, row.label) for row in rows) == sorted(
        (task, f"{task} {end}") for task in ("refund", "parcel") for end in ("late", "other")
    )
    tests = {row.question for task in ws.session.tasks.versions(ws.ledger.entries()) for row in task.test}
    assert not tests & {row.question for row in rows}


def test_the_budget_in_rows_holds_and_the_largest_groups_give_way(ws, tmp_path):
    learn(ws, tmp_path, "refund", **{"memory_per_label": 3})
    learn(ws, tmp_path, "parcel", **{"memory_per_label": 3, "memory_size": 4})
    rows = [row for _, row in items(memory(ws))]
    assert len(rows) == 4
    assert len({(row.task, row.label) for row in rows}) == 4


@pytest.mark.parametrize("admission", ["hard", "surprise"])
def test_admission_by_loss_keeps_the_rows_with_the_largest(ws, tmp_path, admission):
    learn(ws, tmp_path, "refund", **{"memory_per_label": 2, "methods.replay.admission": admission})
    kept = {item.row: item.score for item, _ in items(memory(ws))}
    assert len(kept) == 4
    everything = learn(
        Workspace.init(tmp_path / "all", ws.ledger.config["model"], dtype="float32"),
        tmp_path,
        "refund",
        **{"memory_per_label": 8, "methods.replay.admission": admission},
    )
    whole = Workspace.open(tmp_path / "all")
    assert everything.moved
    by_label = {}
    for item, row in items(memory(whole)):
        by_label.setdefault(row.label, []).append(item.score)
    best = sorted(score for scores in by_label.values() for score in sorted(scores)[-2:])
    assert sorted(kept.values()) == pytest.approx(best, abs=1e-5)


def test_a_refreshed_column_is_what_the_new_head_says_and_a_kept_one_what_the_old_said(ws, tmp_path):
    learn(ws, tmp_path, "refund")
    old = memory(ws)
    learn(ws, tmp_path, "parcel")
    kept = memory(ws)
    ws.rollback("head~1")
    learn(ws, tmp_path, "parcel", **{"methods.distill.refresh": True})
    fresh = memory(ws)
    key = old.keys[0]
    assert torch.equal(kept.columns["teacher"][key].logprob, old.columns["teacher"][key].logprob)
    assert not torch.equal(fresh.columns["teacher"][key].logprob, old.columns["teacher"][key].logprob)


def test_general_rows_are_rehearsed_with_the_base_models_own_distribution(ws, tmp_path):
    general = tmp_path / "general.jsonl"
    general.write_text("\n".join(json.dumps({"prompt": f"say {i}", "completion": f"fine {i}"}) for i in range(6)))
    path = data(tmp_path / "refund.jsonl", "refund", "late")
    mixed = {**FAST, "methods.instruction_replay.mix": 0.6}
    done = ws.learn("refund", path, overrides=mixed, gate=None, settings={"general": str(general)})
    beats = ws.ledger.notes(done.entry)["record"]["heartbeats"]["instruction_replay"]
    assert all(beat["rows"] >= 1 for _, beat in beats)
    pools = [item.pool for item, _ in items(memory(ws))]
    assert pools.count("general") == 6
    general_key = next(item.row for item, _ in items(memory(ws)) if item.pool == "general")
    before = memory(ws).columns["base"][general_key].logprob
    learn(ws, tmp_path, "parcel")
    assert torch.equal(memory(ws).columns["base"][general_key].logprob, before)  # the base does not change


def test_no_general_row_is_rehearsed_that_is_a_test_row_or_was_deleted(ws, tmp_path):
    general = tmp_path / "general.jsonl"
    asked = [f"Classify the text.\nText: say {i}\nLabel:" for i in range(6)]
    general.write_text("\n".join(json.dumps({"prompt": one, "completion": "fine"}) for one in asked))
    said = {"settings": {"general": str(general)}, "gate": None}
    mixed = {**FAST, "methods.instruction_replay.mix": 0.6}

    def rehearsed():
        return sorted(asked.index(row.prompt) for item, row in items(memory(ws)) if item.pool == "general")

    def task(name, text):
        path = data(tmp_path / f"{name}.jsonl", name, "late")
        row = json.dumps({"text": text, "label": name, "split": "test"})
        path.write_text(f"{path.read_text()}\n{row}\n")
        return path

    path = task("refund", "say 3")
    (notice,) = without_size(ws.plan("refund", path, recipe="replay", settings=said["settings"]).notices)
    assert "no method rehearses the general rows" in notice
    done = ws.learn("refund", path, overrides=mixed, **said)
    assert "not rehearsed, as a test or validation row asks the same: 1 general row" in done.warnings
    assert rehearsed() == [0, 1, 2, 4, 5]
    ws.delete_row(next(row.hash for _, row in items(memory(ws)) if row.prompt == asked[0]))
    done = ws.learn("parcel", task("parcel", "say 5"), overrides=mixed, **said)
    assert rehearsed() == [1, 2, 4]
    assert "rehearsed no longer, as test rows ask the same: the general rows of 1 question" in done.warnings
    assert "deleted from this workspace before, and left out: 1 general row" in done.warnings


def test_no_more_general_rows_are_asked_about_than_a_task_draws(ws, tmp_path):
    general = tmp_path / "general.jsonl"
    general.write_text("\n".join(json.dumps({"prompt": f"say {i}", "completion": f"fine {i}"}) for i in range(50)))

    def kept(task, mix):
        path = data(tmp_path / f"{task}.jsonl", task, "late")
        mixed = {**FAST, "methods.instruction_replay.mix": mix, "methods.instruction_replay.size": 6}
        done = ws.learn(task, path, overrides=mixed, gate=None, settings={"general": str(general)})
        beats = ws.ledger.notes(done.entry)["record"]["heartbeats"]["instruction_replay"]
        drawn = sum(beat["rows"] for _, beat in beats)
        return drawn, sum(item.pool == "general" for item, _ in items(memory(ws)))

    drawn, first = kept("refund", 0.2)
    assert drawn == first == 0.25 * 8 * FAST["num_train_epochs"]
    drawn, second = kept("parcel", 0.5)
    assert drawn > second == 6


def test_of_many_general_rows_those_nearest_in_length_are_rehearsed(ws, tmp_path):
    general = tmp_path / "general.jsonl"
    lengths = [1, 60, 2, 50, 3, 40, 4, 30]
    rows = [{"prompt": "say " + "it again " * n, "completion": "fine"} for n in lengths]
    general.write_text("\n".join(map(json.dumps, rows)))
    path = data(tmp_path / "refund.jsonl", "refund", "late")
    mixed = {**FAST, "methods.instruction_replay.mix": 0.34}
    ws.learn("refund", path, overrides=mixed, gate=None, settings={"general": str(general)})
    kept = {row.prompt.count("again") for item, row in items(memory(ws)) if item.pool == "general"}
    assert kept == {1, 2, 3, 4}


def test_joint_trains_on_all_kept_rows_from_the_base(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "all", str(tiny_model), dtype="float32", keep_rows="all")
    alone = learn(ws, tmp_path, "refund", recipe="joint").tokens
    both = learn(ws, tmp_path, "parcel", recipe="joint").tokens
    assert both > 1.5 * alone
    fresh = Workspace.init(tmp_path / "fresh", ws.ledger.config["model"], dtype="float32", keep_rows="all")
    learn(fresh, tmp_path, "refund", recipe="naive")  # another way to the same parent tasks
    learn(fresh, tmp_path, "parcel", recipe="joint")
    assert torch.equal(logits(fresh), logits(ws))  # it starts from the base, so what head was does not matter


def test_full_stores_weights_and_rolls_back_to_the_bit(ws, tmp_path):
    base = logits(ws)
    learn(ws, tmp_path, "refund", recipe="full")
    trained = logits(ws)
    assert not torch.equal(base, trained)
    ws.rollback("base")
    assert torch.equal(logits(ws), base)
    ws.rollback(ws.ledger.reflog()[0].old)
    assert torch.equal(logits(ws), trained)


@pytest.mark.parametrize(("before", "after"), [("naive", "full"), ("full", "naive")])
def test_what_starts_from_the_base_has_nothing_else_of_the_training_before(ws, tmp_path, before, after):
    learn(ws, tmp_path, "refund", recipe=before)
    learn(ws, tmp_path, "parcel", recipe=after, start="base")
    entry = ws.ledger.resolve("head")
    assert list(ws.ledger.slots(entry)) == ["dense" if after == "full" else "skill"]
    alone = Workspace.init(tmp_path / "alone", ws.ledger.config["model"], dtype="float32")
    learn(alone, tmp_path, "parcel", recipe=after)
    assert torch.equal(logits(ws), logits(alone))


def test_a_method_that_can_do_nothing_is_named(ws, tmp_path):
    fields = {"methods.distill.strength": 1.0}
    assert any(
        "distill acts on rows of memory" in said
        for said in learn(ws, tmp_path, "refund", recipe="naive", **fields).warnings
    )
    done = learn(ws, tmp_path, "parcel", recipe="lwf", start="base")
    idle = "method lwf had no effect over the whole task; start: base leaves it no task before, or leave it out"
    assert [said for said in done.warnings if "method" in said] == [idle]
    assert not any("method" in said for said in learn(ws, tmp_path, "invoice", recipe="lwf").warnings)


@pytest.mark.parametrize(("share", "told"), [(0.01, True), (0.2, False)])
def test_a_method_that_leaves_out_nearly_all_of_the_task_loss_is_told(share, told):
    losses = ((0, 6.0), (4, 2.0))
    beats = [(update, Heartbeat(loss=(share - 1) * loss, weight=0.3)) for update, loss in losses]
    record = SimpleNamespace(loss=losses, heartbeats={"token_weight": beats})
    said = faint(SimpleNamespace(recipe=load_recipe("dft"), record=record))
    assert [one.startswith("method token_weight left 1.0% of the task's loss") for one in said] == [True] * told


def test_the_products_that_ewc_holds_are_stored_and_pull_in_the_next_task(ws, tmp_path):
    for task in ("refund", "parcel"):
        done = learn(ws, tmp_path, task, recipe="ewc_lora", **{"methods.ewc.strength": 100.0, "logging_steps": 1})
    beats = ws.ledger.notes(done.entry)["record"]["heartbeats"]["ewc"]
    assert max(beat["pull"] for _, beat in beats) > 1e-6
    state = states_at(ws.ledger, ws.ledger.resolve("head"), "cpu")["ewc"]
    assert {key.partition("/")[0] for key in state if "/" in key} == {"rows", "columns"}
    assert not any(key.startswith("fisher.") for key in state)


def test_more_data_for_a_known_task_is_an_update_that_keeps_its_test_rows(ws, tmp_path):
    learn(ws, tmp_path, "refund")
    first = ws.session.task("refund", ws.ledger.resolve("head"))
    learn(ws, tmp_path, "refund", label="broken")
    second = ws.session.task("refund", ws.ledger.resolve("head"))
    assert second.version != first.version
    assert {row.hash for row in first.test} <= {row.hash for row in second.test}
    assert len(ws.matrix().stages) == 3


def test_nothing_is_scored_twice(ws, tmp_path, monkeypatch):
    learn(ws, tmp_path, "refund")
    learn(ws, tmp_path, "parcel")

    def refuse(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr("perdure.workflows.session.measure", refuse)
    assert ws.evaluate().tasks.keys() == {"refund", "parcel"}
    assert ws.matrix().score[2][0] is not None


def test_a_gate_that_fails_leaves_head_and_keeps_the_candidate_aside(ws, tmp_path):
    path = data(tmp_path / "refund.jsonl", "refund", "late")
    done = ws.learn("refund", path, overrides=FAST, gate=Gate(floor=1.0))
    assert done.gate.verdict == "fail"
    assert not done.moved
    assert ws.ledger.resolve("head").kind == "base"
    with pytest.raises(BadInput, match="candidate"):
        learn(ws, tmp_path, "parcel")
    assert ws.accept().id == done.entry
    assert ws.ledger.resolve("head").id == done.entry


def test_a_learn_that_raises_leaves_ledger_and_memory_as_they_were(ws, tmp_path, monkeypatch):
    learn(ws, tmp_path, "refund")
    before = (ws.ledger.log(), ws.ledger.refs(), [item for item, _ in items(memory(ws))])

    def fail(*_, **__):
        raise RuntimeError("power cut")

    monkeypatch.setattr("perdure.workflows.learn.draft.remember.after", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        learn(ws, tmp_path, "parcel")
    assert (ws.ledger.log(), ws.ledger.refs(), [item for item, _ in items(memory(ws))]) == before


def test_a_learn_that_taught_nothing_says_so(ws, tmp_path):
    warnings = learn(ws, tmp_path, "refund", learning_rate=1e-9).warnings
    for words in (
        "score of refund did not rise (0.0% before, 0.0% now); train longer",
        "fewer than 50 updates (here 2) rarely teach a task",
    ):
        assert sum(words in said for said in warnings) == 1
    rows = [json.dumps({"prompt": f"about {i}?", "completion": "parcel"}) for i in range(15)]
    path = tmp_path / "parcel.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    quick = {**FAST, "num_train_epochs": 4, "learning_rate": 0.1}
    taught = ws.learn("parcel", path, overrides=quick, gate=None, settings={"max_new_tokens": 1})
    assert taught.scores["parcel"].score > 0
    assert not any("did not rise" in said for said in taught.warnings)


def test_a_learn_that_is_stopped_leaves_word_of_what_it_was(ws, tmp_path, monkeypatch):
    def stop(*_):
        raise Interrupted("stopped")

    monkeypatch.setattr("perdure.workflows.learn.train.host", lambda _: stop)
    with pytest.raises(Interrupted):
        learn(ws, tmp_path, "refund")
    (about,) = (ws.ledger.root / "runs").glob("*/*.json")
    told = json.loads(about.read_text())
    assert (told["task"], told["parent"]) == ("refund", ws.ledger.resolve("base").id)
    monkeypatch.undo()
    learn(ws, tmp_path, "refund")
    assert not list((ws.ledger.root / "runs").iterdir())


def test_what_is_doubtful_in_the_data_is_told_by_the_plan_and_by_the_learn(ws, tmp_path):
    path = data(tmp_path / "refund.jsonl", "refund", "late")
    path.write_text("\n".join([path.read_text(), *path.read_text().split("\n")[:3]]))
    assert without_size(ws.plan("refund", path).notices) == ["3 duplicate rows dropped"]
    assert "3 duplicate rows dropped" in ws.learn("refund", path, overrides=FAST, gate=None).warnings


# --- a model with few positions


@pytest.fixture
def narrow(people_folder, tmp_path):
    """A workspace on a GPT-2 that has a table of 64 positions."""
    return Workspace.init(tmp_path / "narrow", str(people_folder), dtype="float32")


def test_texts_longer_than_the_models_positions_are_cut_and_counted(narrow, tmp_path):
    rows = [
        {
            "text": ("lives in Rome " * (30 if n % 2 else 1)) + f"{'a ' * n}",
            "label": ("Rome", "Paris")[n % 2],
            "split": s,
        }
        for s, start in (("train", 0), ("test", 8))
        for n in range(start, start + 6)
    ]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"template": "{text}"}
    assert narrow.plan("long", path, settings=settings).recipe.settings.max_length == 64
    done = narrow.learn("long", path, overrides=FAST, gate=None, settings=settings)
    assert narrow.ledger.resolve("head").recipe["max_length"] == 64
    assert "longer than 64 tokens, and cut: 3 of 6 train rows" in done.warnings
    cut = "3 prompts were longer than the model's 64 positions allow and lost the start"
    assert done.warnings.count(cut) == 1
    chosen = narrow.learn(
        "chosen", path, overrides=FAST, gate=None, settings={**settings, "scorer": "choice"}, allow_leaks=True
    )
    assert cut in chosen.warnings


def test_an_answer_has_no_more_tokens_than_the_model_has_positions_for(narrow):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (answer,) = narrow.predict(["lives in " * 50], max_new_tokens=200)
    assert len(narrow.tokenizer(answer.answer)["input_ids"]) <= 32
    assert [str(one.message) for one in told if one.filename == __file__] == [
        "1 prompt was longer than the model's 64 positions allow and lost the start",
        "answers have at most 32 tokens, not 200: the model has 64 positions",
    ]
    assert predict(narrow.session, [prompt_of("lives in", "the text")], Request(max_new_tokens=62)).notices == ()


def test_a_leak_that_is_allowed_is_trained_and_told_and_not_remembered(ws, tmp_path):
    path = data(tmp_path / "leaky.jsonl", "refund", "late")
    tested = {"text": "money back 100 late", "label": "refund other", "split": "train"}
    path.write_text(path.read_text("utf-8") + "\n" + json.dumps(tested), "utf-8")
    made = ws.learn("refund", path, recipe="dual_replay", overrides=FAST, gate=None, allow_leaks=True)
    assert any("as a test row asks the same: 1 train row" in warning for warning in made.warnings)
    assert len(items(memory(ws))) > 0
    assert not any("100 late" in row.prompt for _, row in items(memory(ws)))


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        ({"methods.replay": {}, "methods.distill": {"teacher": "./nowhere"}}, BadInput, "nowhere"),
        ({"optim": "grokadamw"}, BadSpec, "pip install grokadamw"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs.steps": 2}, BadSpec, "steps"),
        (
            {"methods.replay": {}, "methods.distill": {"teacher": "base"}, "train": "full"},
            BadSpec,
            "trains its weights",
        ),
    ],
)
def test_a_teacher_that_cannot_be_asked_is_refused_before_training(ws, tmp_path, overrides, error, words):
    told = []
    with pytest.raises(error, match=words):
        ws.learn(
            "refund",
            data(tmp_path / "a.jsonl", "refund", "late"),
            recipe="naive",
            overrides={**FAST, **overrides},
            tick=lambda *progress: told.append(progress),
        )
    assert not told


def test_a_task_whose_test_rows_were_all_deleted_does_not_stop_later_learns(ws, tmp_path):
    learn(ws, tmp_path, "refund", recipe="naive")
    for row in ws.session.task("refund", ws.ledger.resolve("head")).test:
        ws.delete_row(row.hash)
    made = Workspace.open(ws.ledger.root).learn(
        "parcel", data(tmp_path / "b.jsonl", "parcel", "late"), recipe="naive", overrides=FAST, gate=Gate()
    )
    assert any("refund has no test rows left" in warning for warning in made.warnings)
    assert list(made.scores) == ["parcel"]


def test_what_is_held_out_is_not_trained_with_the_rows_of_older_versions(tiny_model, tmp_path, monkeypatch):
    ws = Workspace.init(tmp_path / "all", str(tiny_model), dtype="float32", keep_rows="all")
    seen = []
    monkeypatch.setattr(Learner, "settle", lambda self, settle=Learner.settle: (seen.append(self), settle(self))[1])
    for n in (8, 16):
        rows = data(tmp_path / f"{n}.jsonl", "refund", "late", n)
        made = ws.learn("refund", rows, recipe="joint", overrides={**FAST, "keep": "best"}, gate=None)
        assert any("validated on" in text and "which are not trained on" in text for text in made.warnings)
        curve = ws.ledger.notes(made.entry)["record"]["validation"]
        assert curve[-1][0] == ws.ledger.notes(made.entry)["record"]["updates"] - 1
        shown = CliRunner().invoke(app, ["-w", str(ws.ledger.root), "show"]).stdout
        assert (
            f"in {len(curve)} validation{'s' * (len(curve) > 1)}, least {min(loss for _, loss in curve):.4g} after update"
            in shown
        )
    trained = [row.ids for row in seen[-1].inputs.rows]
    assert len(set(trained)) == len(trained)
    assert seen[-1].inputs.validation
    assert not {row.ids for row in seen[-1].inputs.validation} & set(trained)


def test_one_row_is_trained_though_the_recipe_would_hold_some_out(ws, tmp_path):
    rows = [json.loads(line) for line in data(tmp_path / "few.jsonl", "refund", "late").read_text("utf-8").splitlines()]
    few = [row for row in rows if row["split"] == "test"] + rows[:1]
    (tmp_path / "few.jsonl").write_text("\n".join(map(json.dumps, few)), "utf-8")
    made = ws.learn("refund", tmp_path / "few.jsonl", recipe="naive", overrides={**FAST, "keep": "best"}, gate=None)
    assert ws.ledger.notes(made.entry)["record"]["updates"] == 1
    assert any("too few to hold any out" in warning for warning in made.warnings)


def test_rows_that_were_all_learned_before_are_told(ws, tmp_path):
    assert not any("learned before" in warning for warning in learn(ws, tmp_path, "refund", recipe="naive").warnings)
    assert "every train row of refund was learned before" in learn(ws, tmp_path, "refund", recipe="naive").warnings
