"""What a training script may say to Trainer is honoured by ContinualTrainer, or refused by name with the reason."""

import inspect
import json
from dataclasses import fields

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from perdure.bridges import trainer_settings
from perdure.bridges.continual_trainer import ContinualTrainer
from perdure.bridges.trainer_settings import HONOURED, INIT, METHODS, PASSED, TAKEN, settings_of, with_settings
from perdure.core.errors import BadInput, BadSpec, Conflict
from perdure.methods.registry import load_recipe
from perdure.methods.replay.replay import Replay
from perdure.train import checkpoint

FIELDS = {field.name: field for field in fields(TrainingArguments)}
OTHER = {  # honoured values beside the default, where adding to it makes none
    "output_dir": "elsewhere",
    "lr_scheduler_type": "cosine",
    "optim": "adamw_torch",
    "logging_strategy": "epoch",
    "eval_strategy": "epoch",
    "eval_steps": 3,
    "save_strategy": "epoch",
    "include_num_input_tokens_seen": "non_padding",
    "label_smoothing_factor": 0.1,
    "max_steps": 7,
    "log_level": "error",
    "log_level_replica": "error",
    "disable_tqdm": True,
    "seed": 5,
}


def beside_default(name):
    """Return another value than the default of an argument."""
    default = FIELDS[name].default
    if name in OTHER:
        return OTHER[name]
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int | float) else "another"


@pytest.fixture
def plain(tmp_path):
    return TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, disable_tqdm=True)


def make(tiny_model, tokenizer, arguments, **more):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    rows = [{"prompt": f"a {i}:", "completion": " refund"} for i in range(10)]
    given = {"train_dataset": rows, "processing_class": tokenizer, "recipe": "naive", **more}
    return ContinualTrainer(model, arguments, **given)


# ---- arguments


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "report_to"])
def test_every_argument_is_honoured_or_refused_by_name(plain, name):
    usual = getattr(plain, name)
    value = not usual if isinstance(usual, bool) else beside_default(name)
    setattr(plain, name, value)
    if name == "use_cpu":  # on which other defaults depend
        plain = TrainingArguments(output_dir=plain.output_dir, use_cpu=value)
    if name in HONOURED:
        settings = settings_of(plain, 10)
        assert name not in TAKEN or settings[name] == value
    else:
        with pytest.raises(BadSpec, match=rf"TrainingArguments\.{name}.* cannot be honoured .*\(.+\)"):
            settings_of(plain, 10)


def test_the_lists_name_nothing_that_is_no_argument():
    assert set(HONOURED) <= set(FIELDS)
    refused = set(FIELDS) - set(HONOURED)
    assert [start for start in trainer_settings.REASONS if not any(name.startswith(start) for name in refused)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("save_strategy", "best"),
        ("include_num_input_tokens_seen", "all"),
        ("optim", "galore_adamw"),
        ("optim", "grokadamw"),
        ("lr_scheduler_type", "reduce_lr_on_plateau"),
    ],
)
def test_values_of_honoured_arguments_that_are_not_are_refused_by_name(tiny_model, tokenizer, plain, name, value):
    setattr(plain, name, value)
    with pytest.raises((BadSpec, Conflict), match=name):
        make(tiny_model, tokenizer, plain)


def test_optimizer_and_schedule_of_the_arguments_are_those_that_train(tiny_model, tokenizer, plain):
    plain.optim, plain.optim_args = "sgd", "momentum=0.9"
    plain.lr_scheduler_type, plain.lr_scheduler_kwargs = "cosine_with_min_lr", {"min_lr_rate": 0.5}
    trainer = make(tiny_model, tokenizer, plain)
    assert type(trainer.optimizer) is torch.optim.SGD
    assert trainer.optimizer.param_groups[0]["momentum"] == 0.9
    done = trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * plain.learning_rate)
    assert done.global_step == trainer.learner.total
    plain.optim, plain.optim_args = "adamw_torch_fused", None  # Trainer's default
    assert trainer_settings.settings_of(plain, 10)["optim"] == "adamw_torch"


@pytest.mark.parametrize(
    ("name", "value"), [("use_dora", True), ("modules_to_save", ["lm_head"]), ("trainable_token_indices", [1])]
)
def test_a_kind_of_adapter_that_recipes_do_not_train_is_refused_by_name(tiny_model, plain, name, value):
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **{name: value}))
    with pytest.raises(BadSpec, match=rf"LoraConfig\.{name} is not supported: "):
        ContinualTrainer(model, plain, train_dataset=[{"input_ids": [1, 2], "labels": [1, 2]}])


def test_a_tracker_that_is_not_installed_is_refused_by_name(plain):
    plain.report_to = ["wandb"]
    with pytest.raises(BadSpec, match="report_to: wandb is not installed"):
        settings_of(plain, 10)


def test_what_trainer_does_with_an_argument_it_does_here_too(tiny_model, tokenizer, tmp_path, plain):
    given = {
        name: beside_default(name)
        for name in PASSED
        if name not in ("report_to", "full_determinism", "skip_memory_metrics")
    }
    for name, value in given.items():
        setattr(plain, name, str(tmp_path / value) if name == "output_dir" else value)
    trainer = make(tiny_model, tokenizer, plain, eval_dataset=[{"prompt": "a 1:", "completion": " refund"}])
    assert {name: getattr(trainer.args, name) for name in given} == {name: getattr(plain, name) for name in given}
    assert trainer.args.learning_rate == plain.learning_rate
    assert trainer.args.per_device_train_batch_size == plain.per_device_train_batch_size
    assert trainer.args.num_train_epochs == plain.num_train_epochs


def test_a_recipe_whose_settings_the_arguments_overrule_is_told(tiny_model, tokenizer, plain):
    with pytest.warns(UserWarning, match=r"lora_r 4 \(that of the model is used\)") as caught:
        make(tiny_model, tokenizer, plain, recipe={"name": "mine", "learning_rate": 0.5, "lora_r": 4})
    assert any("learning_rate 0.5 (args have 5e-05)" in str(warning.message) for warning in caught)


# ---- Trainer.__init__ and methods


def test_arguments_that_a_method_excludes_are_refused_by_its_name(monkeypatch):
    recipe = load_recipe("replay")
    assert with_settings(recipe, {"gradient_accumulation_steps": 2}).methods == recipe.methods
    monkeypatch.setattr(Replay, "supports", frozenset())
    with pytest.raises(Conflict, match="method replay does not support gradient accumulation"):
        with_settings(recipe, {"gradient_accumulation_steps": 2})


def test_every_argument_of_trainers_init_is_taken_or_refused_by_name(tiny_model, tokenizer, plain):
    taken = set(inspect.signature(ContinualTrainer.__init__).parameters)
    for name in list(inspect.signature(Trainer.__init__).parameters)[1:]:
        assert (name in taken) is not (name in INIT)
        if name in INIT:
            with pytest.raises(BadSpec, match=f"takes no {name}: "):
                make(tiny_model, tokenizer, plain, **{name: (torch.optim.SGD, None)})
    assert make(tiny_model, tokenizer, plain, optimizers=(None, None), callbacks=None, compute_metrics=None)
    with pytest.raises(TypeError, match="'tokeniser'"):
        make(tiny_model, tokenizer, plain, tokeniser=tokenizer)
    with pytest.raises(BadInput, match="no model"):
        ContinualTrainer(args=plain, train_dataset=[{"prompt": "a", "completion": "b"}])


def test_methods_that_do_not_work_here_say_so(tiny_model, tokenizer, plain):
    trainer = make(tiny_model, tokenizer, plain)
    for name, why in METHODS.items():
        with pytest.raises(BadSpec, match=f"has no {name}: {why[:10]}"):
            getattr(trainer, name)()
    for call in (
        lambda: trainer.train(trial={}),
        lambda: trainer.train("out/checkpoint-3"),
        lambda: trainer.evaluate([{"prompt": "a", "completion": "b"}], ignore_keys=["x"]),
    ):
        with pytest.raises(BadSpec):
            call()


@pytest.mark.parametrize(
    ("name", "given"),
    [("eval_dataset", {"a": []}), ("train_dataset", iter([{"prompt": "a"}])), ("train_dataset", None)],
)
def test_a_dataset_of_another_kind_is_refused_by_name(tiny_model, tokenizer, plain, name, given):
    with pytest.raises(BadInput, match=f"{name} is .*give one list of rows"):
        make(tiny_model, tokenizer, plain, **{name: given})


def test_evaluating_while_training_needs_rows(tiny_model, tokenizer, plain):
    plain.eval_strategy = "steps"
    with pytest.raises(BadSpec, match="eval_strategy is 'steps', and there is no eval_dataset"):
        make(tiny_model, tokenizer, plain)


# ---- what is logged and saved


class Heard(TrainerCallback):
    def __init__(self):
        self.logs, self.ended, self.evaluated = [], [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, dict(logs)))

    def on_epoch_end(self, args, state, control, **kwargs):
        self.ended.append((state.global_step, state.epoch))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.evaluated.append(state.global_step)


FAST = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
}  # 3 updates an epoch


def arguments(tmp_path, **more):
    settings = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", **FAST, **more}
    return TrainingArguments(output_dir=str(tmp_path / "out"), **settings)


def test_epochs_steps_rows_and_tokens_are_logged_as_they_are(tiny_model, tokenizer, tmp_path):
    heard = Heard()
    trainer = make(
        tiny_model, tokenizer, arguments(tmp_path, include_num_input_tokens_seen="non_padding"), callbacks=[heard]
    )
    done = trainer.train()
    losses = [(step, logs["epoch"]) for step, logs in heard.logs if "loss" in logs]
    assert losses == [(step, pytest.approx(step / 3, abs=1e-3)) for step in range(1, 10)]
    assert heard.ended == [(3, 1.0), (6, 2.0), (9, 3.0)]
    assert trainer.state.num_train_epochs == 3
    assert (done.global_step, done.metrics["epoch"]) == (9, 3.0)
    rows, steps = done.metrics["train_samples_per_second"], done.metrics["train_steps_per_second"]
    assert rows / steps == pytest.approx(30 / 9, rel=0.02)
    tokens = 3 * sum(len(kept.row) for kept in trainer.fresh)
    assert heard.logs[-2][1]["num_input_tokens_seen"] == tokens == trainer.learner.record.tokens
    assert done.training_loss == pytest.approx(sum(logs["loss"] for _, logs in heard.logs if "loss" in logs) / 9)


def test_a_run_that_goes_on_counts_from_where_it_stopped(tiny_model, tokenizer, tmp_path, monkeypatch):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.time, "monotonic", iter(range(0, 10**6, 100)).__next__)  # a checkpoint is always due
    with pytest.raises(KeyboardInterrupt):
        make(tiny_model, tokenizer, arguments(tmp_path), state=tmp_path / "state", callbacks=[Stop()]).train()
    heard = Heard()
    done = make(tiny_model, tokenizer, arguments(tmp_path), state=tmp_path / "state", callbacks=[heard]).train()
    assert [step for step, logs in heard.logs if "loss" in logs] == [5, 6, 7, 8, 9]
    assert heard.ended == [(6, 2.0), (9, 3.0)]
    assert (done.global_step, done.metrics["epoch"]) == (9, 3.0)
    assert done.metrics["train_samples_per_second"] / done.metrics["train_steps_per_second"] == pytest.approx(
        16 / 5, rel=0.02
    )


@pytest.mark.parametrize(
    ("saving", "expected"),
    [
        ({"save_strategy": "steps", "save_steps": 4}, [4, 8, 9]),
        ({"save_strategy": "steps"}, [9]),
        ({"save_strategy": "epoch"}, [3, 6, 9]),
        ({"save_strategy": "epoch", "save_total_limit": 1}, [9]),
        ({"save_strategy": "no"}, []),
    ],
)
def test_the_model_is_saved_when_it_is_to_be(tiny_model, tokenizer, tmp_path, saving, expected):
    trainer = make(tiny_model, tokenizer, arguments(tmp_path, **saving))
    trainer.train()
    found = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "out").glob("checkpoint-*"))
    assert found == expected
    if expected:
        last = tmp_path / "out" / f"checkpoint-{expected[-1]}"
        assert json.loads((last / "trainer_state.json").read_text())["epoch"] == 3.0
        assert not list(last.glob("optimizer*"))
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        loaded = dict(PeftModel.from_pretrained(base, last).named_parameters())
        trained = dict(trainer.learner.model.named_parameters())  # nothing settles in naive
        assert all(torch.equal(loaded[name], value) for name, value in trained.items() if "lora_" in name)


@pytest.mark.parametrize(
    ("evaluating", "expected"),
    [
        ({"eval_strategy": "epoch"}, [3, 6, 9]),
        ({"eval_strategy": "epoch", "eval_delay": 2}, [6, 9]),
        ({"eval_strategy": "steps", "eval_steps": 4, "eval_on_start": True}, [0, 4, 8, 9]),
    ],
)
def test_it_is_evaluated_when_it_is_to_be_and_trains_the_same(tiny_model, tokenizer, tmp_path, evaluating, expected):
    heard, rows = Heard(), [{"prompt": "a 1:", "completion": " refund"}]
    trainer = make(tiny_model, tokenizer, arguments(tmp_path, **evaluating), callbacks=[heard], eval_dataset=rows)
    trainer.train()
    assert heard.evaluated == expected
    last = [logs for _, logs in heard.logs if "eval_loss" in logs][-1]
    assert {"eval_loss", "eval_runtime", "eval_samples_per_second", "epoch"} <= last.keys()
    assert last["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-5)
    without = make(tiny_model, tokenizer, arguments(tmp_path))
    without.train()
    ours, theirs = (dict(one.learner.params) for one in (trainer, without))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
