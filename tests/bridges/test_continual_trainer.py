"""ContinualTrainer is a drop-in for Trainer: the same updates as the reference loop, and a memory that outlives it."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments

import perdure
from perdure.bridges.continual_trainer import MEMORY, ContinualTrainer
from perdure.core.errors import BadInput, BadSpec, BrokenStore, Conflict
from perdure.core.rows import Row
from perdure.data.encode import encode
from perdure.memory import file as store
from perdure.memory.pool import Pool
from perdure.methods.registry import load_recipe
from perdure.model.forward import Tokens
from perdure.train import checkpoint, loop
from perdure.train.learner import Learner
from perdure.train.task import TaskInputs, Trainable
from streams import same

FAST = {"learning_rate": 0.03, "num_train_epochs": 4, "per_device_train_batch_size": 8, "seed": 3}
REPLAY = {"name": "kept", "memory_per_label": 4, "methods": {"replay": {"mix": 0.5}, "distill": {"top_k": 8}}}


def make_model(folder, dropout: float = 0.0):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return get_peft_model(
        base, LoraConfig(r=8, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def args(tmp_path, **changes) -> TrainingArguments:
    settings = {"report_to": "none", "disable_tqdm": True, "logging_strategy": "no", **FAST, **changes}
    return TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, **settings)


def texts(word: str, turn: int = 0) -> list[dict]:
    """Rows of a task; with another `turn` the same letters ask for other answers, so that learning one undoes the other."""
    answers = ["refund", "parcel", "invoice"]
    return [
        {
            "prompt": f"{word} {'abc'[i % 3]}{i}:",
            "completion": f" {answers[(i + turn) % 3]}",
            "label": f"{word}-{i % 3}",
        }
        for i in range(12)
    ]


def tokenised(rows: list[dict], tokenizer, width: int = 0) -> list[dict]:
    """The same rows as a training script would tokenise them, padded to `width`."""
    made = []
    for row in rows:
        coded = encode(Row(row["prompt"], row["completion"]), tokenizer, 512)
        more = max(width - len(coded), 0)
        labels = [i if t else -100 for i, t in zip(coded.ids, coded.trained, strict=True)]
        made.append(
            {
                "input_ids": [*coded.ids, *[tokenizer.pad_token_id] * more],
                "attention_mask": [1] * len(coded) + [0] * more,
                "labels": [*labels, *[-100] * more],
                "label": row["label"],
            }
        )
    return made


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def test_it_is_public():
    assert perdure.ContinualTrainer is ContinualTrainer


def test_the_same_settings_give_the_bits_of_the_reference_loop(tiny_model, tokenizer, tmp_path):
    options = {
        "gradient_accumulation_steps": 2,
        "warmup_steps": 0.2,
        "label_smoothing_factor": 0.1,
        "weight_decay": 0.01,
    }
    first = ContinualTrainer(
        make_model(tiny_model), args(tmp_path), train_dataset=texts("a"), processing_class=tokenizer,
        recipe=REPLAY, state=tmp_path / "state", task="a",
    )  # fmt: skip
    first.train()
    model = make_model(tiny_model, dropout=0.1)
    trainer = ContinualTrainer(
        model, args(tmp_path, **options), train_dataset=tokenised(texts("b", 1), tokenizer),
        processing_class=tokenizer, recipe=REPLAY, state=tmp_path / "state", task="b",
    )  # fmt: skip
    done = trainer.train()

    by_loop = make_model(tiny_model, dropout=0.1)
    memory = trainer.memory
    settings = {**{name: value for name, value in FAST.items() if name != "seed"}, **options, "logging_steps": 500}
    recipe = load_recipe("naive", settings | {f"methods.{name}": spec for name, spec in REPLAY["methods"].items()})
    params = {name: value for name, value in by_loop.named_parameters() if value.requires_grad}
    new = [encode(Row(row["prompt"], row["completion"]), tokenizer, 512) for row in texts("b", 1)]
    kept = memory.rows
    pool = Pool(memory.keys, [k.row for k in kept], [k.label for k in kept], [k.task for k in kept], memory.columns)
    trainable = Trainable(by_loop, params, Tokens(tokenizer.pad_token_id))
    learner = Learner(trainable, recipe, TaskInputs("b", new, pools={"replay": pool}, seed=3))
    loop.train(learner)
    assert same(weights(model), weights(by_loop))
    assert not same(weights(model), weights(make_model(tiny_model)))
    assert done.global_step == learner.total
    assert trainer.learner.record.heartbeats == learner.record.heartbeats


def test_replay_keeps_what_naive_forgets(tiny_model, tokenizer, tmp_path):
    left = {}
    for name, recipe, state in (("naive", "naive", None), ("kept", REPLAY, tmp_path / "state")):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        for turn, task in enumerate("ab"):
            trainer = ContinualTrainer(
                model, args(tmp_path, num_train_epochs=20, learning_rate=0.01), train_dataset=texts(task, turn),
                eval_dataset=texts("a"), processing_class=tokenizer, recipe=recipe, state=state, task=task,
            )  # fmt: skip
            trainer.train()
            left[name, task] = trainer.evaluate()["eval_loss"]
        left[name, "new"] = trainer.evaluate(texts("b", 1))["eval_loss"]
    assert left["naive", "a"] == left["kept", "a"] < 1  # on the first task replay is plain training
    assert left["naive", "b"] > 1.4 * left["naive", "a"]
    assert left["kept", "b"] < 0.5 * left["naive", "b"]
    assert left["kept", "new"] < 0.5
    beats = trainer.learner.record.heartbeats
    assert beats["replay"][0][1].rows == 8  # mix 0.5 of batches of 8
    assert any(beat.pull > 0 for _, beat in beats["distill"])


def test_state_is_one_safetensors_file_that_gives_the_memory_back(tiny_model, tokenizer, tmp_path):
    trainer = ContinualTrainer(
        make_model(tiny_model), args(tmp_path, num_train_epochs=1), train_dataset=texts("a"),
        processing_class=tokenizer, recipe=REPLAY, state=tmp_path / "state", task="a",
    )  # fmt: skip
    trainer.train()
    path = tmp_path / "state" / MEMORY
    assert sorted(p.name for p in path.parent.iterdir()) == ["lock", MEMORY]
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["perdure"])
    assert told["tasks"] == ["a"]
    memory = store.load(path)
    assert len(memory.rows) == 12  # 4 of each of 3 labels
    assert {kept.row for kept in memory.rows} == {kept.row for kept in trainer.fresh}
    assert {kept.label for kept in memory.rows} == {"a-0", "a-1", "a-2"}
    assert set(memory.columns["teacher"]) == set(memory.keys)
    again = trainer.learner.inference.top_k([kept.row for kept in memory.rows], 8)
    for kept, top in zip(memory.rows, again, strict=True):
        stored = memory.columns["teacher"][kept.key]
        assert torch.equal(stored.index, top.index.int())
        assert torch.equal(stored.logprob, top.logprob.half())
        assert torch.equal(stored.tail, top.tail.half())
    store.save(tmp_path / "copy", memory)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_memory_stays_within_its_budget_and_keeps_every_task(tiny_model, tokenizer, tmp_path):
    recipe = {"memory_per_label": 3, "memory_size": 9, "methods": {"replay": {"admission": "hard"}}}
    for turn, task in enumerate("ab"):
        ContinualTrainer(
            make_model(tiny_model), args(tmp_path, num_train_epochs=1), train_dataset=texts(task, turn),
            processing_class=tokenizer, recipe=recipe, state=tmp_path, task=task,
        ).train()  # fmt: skip
    memory = store.load(tmp_path / MEMORY)
    assert len(memory.rows) == 9
    assert {kept.task for kept in memory.rows} == {"a", "b"}
    assert [kept.stage for kept in memory.rows if kept.task == "b"] == [2] * sum(k.task == "b" for k in memory.rows)
    assert memory.tasks == ["a", "b"]


def test_surprise_is_measured_before_the_task_and_hardness_after(tiny_model, tokenizer, tmp_path):
    for policy in ("surprise", "hard"):
        trainer = ContinualTrainer(
            make_model(tiny_model), args(tmp_path), train_dataset=texts("a"), processing_class=tokenizer,
            recipe={"memory_per_label": 4, "methods": {"replay": {"admission": policy}}}, state=tmp_path / policy, task="a",
        )  # fmt: skip
        rows = [kept.row for kept in trainer.fresh]
        before = trainer.learner.inference.nll(rows)
        trainer.train()
        after = trainer.learner.inference.nll(rows)
        assert max(after) < min(before)
        scores = {kept.row: kept.score for kept in store.load(tmp_path / policy / MEMORY).rows}
        assert [scores[row] for row in rows] == (before if policy == "surprise" else after)


def test_padded_tensors_and_text_are_the_same_rows(tiny_model, tokenizer, tmp_path):
    found = []
    for rows in (
        texts("a"),
        tokenised(texts("a"), tokenizer, width=40),
        [
            {k: v if k == "label" else torch.tensor(v) for k, v in row.items()}
            for row in tokenised(texts("a"), tokenizer)
        ],
    ):
        trainer = ContinualTrainer(
            make_model(tiny_model),
            args(tmp_path),
            train_dataset=rows,
            processing_class=tokenizer,
            recipe="naive",
            task="a",
        )
        found.append([kept.key for kept in trainer.fresh])
    assert found[0] == found[1] == found[2]


def test_a_killed_run_goes_on_to_the_same_bits(tiny_model, tokenizer, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise Killed

    def start(folder, *callbacks) -> ContinualTrainer:
        return ContinualTrainer(
            make_model(tiny_model), args(tmp_path), train_dataset=texts("a"), processing_class=tokenizer,
            recipe="dual_replay", state=tmp_path / folder, task="a", callbacks=callbacks,
        )  # fmt: skip

    whole = start("whole")
    whole.train()
    monkeypatch.setattr(checkpoint.time, "monotonic", iter(range(0, 10**6, 100)).__next__)  # a checkpoint is always due
    with pytest.raises(Killed):
        start("cut", Kill()).train()
    assert not (tmp_path / "cut" / MEMORY).exists()
    monkeypatch.undo()
    resumed = start("cut")
    assert resumed.first_update == 5
    resumed.train()
    assert same(weights(whole.learner.model), weights(resumed.learner.model))
    assert (tmp_path / "cut" / MEMORY).read_bytes() == (tmp_path / "whole" / MEMORY).read_bytes()
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["lock", MEMORY]


def test_without_state_it_warns_trains_and_keeps_nothing(tiny_model, tokenizer, tmp_path):
    model = make_model(tiny_model)
    start = weights(model)
    with pytest.warns(UserWarning, match="give state=FOLDER"):
        trainer = ContinualTrainer(
            model, args(tmp_path, max_steps=3), train_dataset=texts("a"), processing_class=tokenizer
        )
    assert trainer.train().global_step == 3
    assert not same(start, weights(model))
    assert trainer.task == "task-1"


def test_the_model_is_saved_and_logged_as_trainer_does(tiny_model, tokenizer, tmp_path):
    told = []

    class Listen(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            told.append(logs)

    trainer = ContinualTrainer(
        make_model(tiny_model), args(tmp_path, logging_strategy="steps", logging_steps=2), train_dataset=texts("a"),
        processing_class=tokenizer, recipe="naive", callbacks=[Listen()],
    )  # fmt: skip
    done = trainer.train()
    assert done.training_loss > 0
    assert any({"loss", "grad_norm", "learning_rate"} <= logs.keys() for logs in told)
    trainer.save_model()
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    ids = tokenizer("Label a3:", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, trainer.learner.model.eval()(input_ids=ids).logits)


def test_a_plain_model_is_trained_whole_and_bf16_is_autocast(tiny_model, tokenizer, tmp_path):
    dtypes = []
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    trainer = ContinualTrainer(
        model, args(tmp_path, bf16=True, learning_rate=1e-3, max_steps=2), train_dataset=texts("a"),
        processing_class=tokenizer, recipe="naive",
    )  # fmt: skip
    model.model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    before = weights(model)
    trainer.train()
    assert set(dtypes) == {torch.bfloat16}
    assert all(not torch.equal(before[name], value) for name, value in weights(model).items())


def test_each_task_needs_a_trainer_made_after_the_last(tiny_model, tokenizer, tmp_path):
    def make(task: str) -> ContinualTrainer:
        return ContinualTrainer(
            make_model(tiny_model), args(tmp_path, max_steps=1), train_dataset=texts(task), processing_class=tokenizer,
            state=tmp_path, task=task,
        )  # fmt: skip

    first, early = make("a"), make("b")
    first.train()
    for trainer in (first, early):
        with pytest.raises(BadInput, match="make a new ContinualTrainer"):
            trainer.train()
    make("b").train()
    assert store.load(tmp_path / MEMORY).tasks == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"train_dataset": []}, BadInput, "no rows"),
        ({"train_dataset": [{"input_ids": [1, 2, 3]}]}, BadInput, "no labels"),
        ({"train_dataset": [{"input_ids": [1, 2], "labels": [-100, -100]}]}, BadInput, "nothing to train"),
        ({"train_dataset": [{"input_ids": [1, 2, 3], "labels": [2, 3, -100]}]}, BadInput, "do not shift"),
        ({"train_dataset": [{"input_ids": [1, 2], "labels": [1]}]}, BadInput, "2, 1, 2 tokens"),
        ({"processing_class": None}, BadInput, "processing_class"),
        ({"recipe": "dual_repaly"}, BadInput, "did you mean 'dual_replay'"),
        ({"recipe": {"methods": {"repaly": {}}}}, BadSpec, "did you mean 'replay'"),
        ({"recipe": "joint"}, BadSpec, "only a workspace stores"),
        ({"recipe": {"keep": "best"}}, BadSpec, "eval_dataset"),
        ({"recipe": {"methods": {"distill": {"teacher": "base"}}}}, BadSpec, "only a workspace loads"),
        (
            {"args": {"gradient_checkpointing_kwargs": {"use_reentrant": True}}},
            BadSpec,
            "gradient_checkpointing_kwargs.* use_reentrant: False",
        ),
        ({"args": {"optim": "lomo"}}, Conflict, "optim: lomo: it steps inside the backward"),
        ({"args": {"adam_beta1": 0.8}}, BadSpec, "adam_beta1"),
        ({"args": {"data_seed": 7}}, BadSpec, "data_seed"),
        ({"args": {"dataloader_drop_last": True}}, BadSpec, "dataloader_drop_last"),
        ({"args": {"train_sampling_strategy": "sequential"}}, BadSpec, "train_sampling_strategy"),
        (
            {"args": {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"nothing": 1}}},
            BadSpec,
            "lr_scheduler_type",
        ),
        ({"args": {"num_train_epochs": 1.5}}, BadSpec, "1.5"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_words(tiny_model, tokenizer, tmp_path, options, error, words):
    chosen = {"train_dataset": texts("a"), "processing_class": tokenizer, "recipe": "naive", **options}
    chosen["args"] = args(tmp_path, **options.get("args", {}))
    with pytest.raises(error, match=words):
        ContinualTrainer(make_model(tiny_model), **chosen)


def test_a_model_with_nothing_to_train_is_refused(tiny_model, tokenizer, tmp_path):
    frozen = AutoModelForCausalLM.from_pretrained(tiny_model).requires_grad_(False)
    with pytest.raises(BadInput, match="is_trainable=True"):
        ContinualTrainer(frozen, args(tmp_path), train_dataset=texts("a"), processing_class=tokenizer, recipe="naive")


def test_a_broken_memory_is_an_error_not_an_empty_one(tiny_model, tokenizer, tmp_path):
    (tmp_path / MEMORY).write_bytes(b"not a memory")
    with pytest.raises(BrokenStore, match=MEMORY):
        ContinualTrainer(make_model(tiny_model), args(tmp_path), train_dataset=texts("a"), state=tmp_path)


def test_rows_are_no_longer_than_the_model_has_positions(tiny_model, tokenizer, tmp_path):
    model = make_model(tiny_model)
    model.config.max_position_embeddings = 24
    long = [{"prompt": "where is it " * 20, "completion": " parcel", "label": "a"}]
    made = ContinualTrainer(model, args(tmp_path), train_dataset=long, processing_class=tokenizer, recipe="naive")
    assert [len(kept.row) for kept in made.fresh] == [24]


def test_the_best_weights_are_looked_for_at_the_end_too_where_steps_end_within_an_epoch(
    tiny_model, tokenizer, tmp_path
):
    def trained(steps):
        trainer = ContinualTrainer(
            make_model(tiny_model),
            args(tmp_path, max_steps=steps),
            train_dataset=texts("a"),
            eval_dataset=texts("a"),
            processing_class=tokenizer,
            recipe={"keep": "best"},
        )
        trainer.train()
        return trainer

    for steps in (1, 3):  # an epoch has two updates
        trainer = trained(steps)
        assert trainer.learner.best.loss == pytest.approx(trainer.evaluate()["eval_loss"], rel=0.05)


@pytest.mark.parametrize(
    "methods", [{"lwf": {"vocabulary": "full"}}, {"feature_distill": {}}], ids=lambda m: next(iter(m))
)
def test_a_bfloat16_model_of_which_a_part_is_trained_is_asked_with_the_weights_it_had(
    tiny_model, tokenizer, tmp_path, methods
):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.get_input_embeddings().requires_grad_(False)
    for task in ("a", "b"):
        chosen = {"recipe": {"memory_per_label": 2, "methods": methods}, "state": tmp_path / "state", "task": task}
        trainer = ContinualTrainer(
            model, args(tmp_path, num_train_epochs=1), train_dataset=texts(task), processing_class=tokenizer, **chosen
        )
        trainer.train()
    assert next(iter(methods)) in trainer.learner.record.acted
