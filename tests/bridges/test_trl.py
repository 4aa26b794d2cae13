"""ContinualTrainer trains on what TRL's SFTTrainer prepared: the same tokens in the loss, the same loss, the same updates."""

import warnings
from itertools import chain

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from perdure.bridges.continual_trainer import ContinualTrainer
from perdure.core.errors import BadInput, BadSpec

ANSWERS = ["refund", "parcel", "invoice"]
GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pairs() -> Dataset:
    rows = [{"prompt": f"Text {'abc'[i % 3]}{i}:", "completion": f" {ANSWERS[i % 3]}" + "!" * i} for i in range(6)]
    return Dataset.from_list([row | {"label": ANSWERS[i % 3]} for i, row in enumerate(rows)])


def dialogues() -> Dataset:
    turns = [("user", "where?"), ("assistant", "refund"), ("user", "and now?"), ("assistant", "parcel")]
    talk = [{"role": role, "content": text} for role, text in turns]
    return Dataset.from_list([{"messages": talk[: 2 * (1 + i % 2)]} for i in range(4)])


def peft_model(folder):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def sft(tiny_model, tokenizer, tmp_path, dataset, **settings) -> SFTTrainer:
    plain = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    args = SFTConfig(output_dir=str(tmp_path / "sft"), max_length=64, **plain, **settings)
    return SFTTrainer(peft_model(tiny_model), args, train_dataset=dataset, processing_class=tokenizer)


def ours(tiny_model, tmp_path, dataset, **options) -> ContinualTrainer:
    args = TrainingArguments(
        output_dir=str(tmp_path / "ours"), report_to="none", disable_tqdm=True, use_cpu=True, **options.pop("args", {})
    )
    return ContinualTrainer(
        peft_model(tiny_model), args, **{"train_dataset": dataset, "recipe": "naive", "task": "a", **options}
    )


def in_their_loss(trainer: SFTTrainer) -> list[list[int]]:
    """Return the tokens that SFTTrainer's own batches have in the loss, by row."""
    read = {"input_ids", "labels", "seq_lengths"} & set(trainer.train_dataset.column_names)
    batches = [trainer.data_collator([row]) for row in trainer.train_dataset.select_columns(sorted(read))]
    return [[int(label) for label in batch["labels"][0, 1:] if label != -100] for batch in batches]


def in_our_loss(trainer: ContinualTrainer) -> list[list[int]]:
    rows = [fresh.row for fresh in trainer.fresh]
    return [[i for i, trained in list(zip(row.ids, row.trained, strict=True))[1:] if trained] for row in rows]


def curve(trainer, name: str = "loss") -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line]


def test_the_updates_on_its_prepared_rows_are_those_of_sft_trainer(tiny_model, tokenizer, tmp_path):
    args = {
        "learning_rate": 0.01, "per_device_train_batch_size": 6, "num_train_epochs": 3, "logging_steps": 1,
        "weight_decay": 0.0, "max_grad_norm": 1.0,
    }  # fmt: skip
    theirs = sft(tiny_model, tokenizer, tmp_path, pairs(), **args)
    prepared = theirs.train_dataset
    assert {"prompt", "completion", "label", "input_ids", "labels"} <= set(prepared.column_names)
    keep = {"recipe": "dual_replay", "state": tmp_path / "state"}
    mine = ours(tiny_model, tmp_path, prepared, args=args, **keep)
    assert in_our_loss(mine) == in_their_loss(theirs)
    assert {fresh.label for fresh in mine.fresh} == set(ANSWERS)
    theirs.train()
    mine.train()
    for name in ("loss", "grad_norm"):
        assert curve(mine, name) == pytest.approx(curve(theirs, name), rel=1e-3)
    assert curve(mine)[-1] < curve(mine)[0] - 0.01

    later = ours(tiny_model, tmp_path, prepared, task="b", args={"max_steps": 2}, **keep)
    later.train()
    assert [kept.task for kept in later.memory.rows] == ["a"] * 6  # stored as tokens, replayed as tokens
    assert later.learner.record.heartbeats["replay"]


@pytest.mark.parametrize(
    ("settings", "dataset"),
    [
        ({"completion_only_loss": False}, pairs),
        ({"assistant_only_loss": True}, dialogues),
        ({}, dialogues),
    ],
    ids=["whole row", "assistant turns", "whole conversation"],
)
def test_whatever_it_masks_is_masked(tiny_model, tokenizer, tmp_path, settings, dataset):
    speaking = AutoTokenizer.from_pretrained(tiny_model)
    speaking.chat_template = GENERATION
    theirs = sft(tiny_model, speaking, tmp_path, dataset(), **settings)
    mine = ours(tiny_model, tmp_path, theirs.train_dataset)
    assert in_our_loss(mine) == in_their_loss(theirs)
    assert len({len(tokens) for tokens in in_our_loss(mine)}) > 1


def test_packed_rows_are_taken_apart_again(tiny_model, tokenizer, tmp_path):
    theirs = sft(tiny_model, tokenizer, tmp_path, pairs(), packing=True)
    assert len(theirs.train_dataset) < 6
    with pytest.warns(UserWarning, match="is packed: its .* rows hold 6 documents"):
        mine = ours(tiny_model, tmp_path, theirs.train_dataset)
    assert list(chain(*in_our_loss(mine))) == list(chain(*in_their_loss(theirs)))
    plain = ours(tiny_model, tmp_path, sft(tiny_model, tokenizer, tmp_path, pairs()).train_dataset)
    assert sorted(row.row.ids for row in mine.fresh) == sorted(row.row.ids for row in plain.fresh)


def test_masks_of_trl_before_it_made_labels_are_read(tiny_model, tmp_path):
    row = {"input_ids": [5, 6, 7, 8], "completion_mask": [0, 0, 1, 1]}
    both = row | {"assistant_masks": [0, 1, 1, 0]}
    mine = ours(tiny_model, tmp_path, [row, both | {"completion_mask": None}, both])
    assert in_our_loss(mine) == [[7, 8], [6, 7], [7]]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        labels = ours(tiny_model, tmp_path, [row | {"labels": [-100, 6, 7, -100]}])  # labels come first, as there
    assert in_our_loss(labels) == [[6, 7]]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {},
            r"train_dataset\[0\] has input_ids but no labels \(it has nothing else\); add labels, .* or one of the masks",
        ),
        ({"text": "a", "loss_mask": [1, 1, 1]}, r"no labels \(it has loss_mask, text\)"),
        ({"completion_mask": [0, 1]}, r"input_ids and completion_mask have 3 and 2 tokens"),
        ({"completion_mask": [0, 0, 0]}, r"nothing to train"),
        ({"labels": [5, 6, 7], "seq_lengths": [2, 2]}, r"seq_lengths add up to 4 tokens, and the row has 3"),
        ({"labels": [5, 6, 7], "position_ids": [0, 1, 0]}, r"columns position_ids \(the positions .*\); remove"),
        ({"labels": [5, 6, 7], "pixel_values": [[0.5]]}, r"columns pixel_values \(rows are text alone\); remove"),
    ],
)
def test_columns_that_are_missing_or_not_understood_are_one_error(tiny_model, tmp_path, row, words):
    with pytest.raises(BadInput, match=words):
        ours(tiny_model, tmp_path, [{"input_ids": [5, 6, 7], **row}])


def test_an_sft_config_is_refused_with_what_to_give(tiny_model, tokenizer, tmp_path):
    theirs = sft(tiny_model, tokenizer, tmp_path, pairs())
    with pytest.raises(
        BadSpec, match=r"args is a SFTConfig, .* were used when SFTTrainer prepared .* give TrainingArg"
    ):
        ContinualTrainer(peft_model(tiny_model), theirs.args, train_dataset=theirs.train_dataset)
