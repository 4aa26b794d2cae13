"""Scores: of another scoring version they are measured anew, and a model that answers right scores so, whatever its template."""

import json

import pytest
import torch
from sqlalchemy import select, update

import chats
from perdure import Gate, Workspace
from perdure.ledger.database import scores

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def labelled(path, words, labels):
    return write(
        path,
        [
            {"text": f"{words} {i}", "label": labels[i % 2], "split": split}
            for split, start in (("train", 0), ("test", 100))
            for i in range(start, start + 4)
        ],
    )


def as_once(ws):
    """Make every cell what it was before there were scoring versions, each item right."""
    with ws.ledger.changing() as connection:
        for state, version, record in connection.execute(
            select(scores.c.state, scores.c.version, scores.c.record)
        ).all():
            right = {**record, "items": [1.0] * record["n"], "score": 1.0}
            row = (scores.c.state == state) & (scores.c.version == version)
            connection.execute(update(scores).where(row).values(version=version.partition(":")[0], record=right))


def test_a_score_of_an_earlier_version_is_neither_shown_nor_compared(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    first = ws.learn("bill", labelled(tmp_path / "a.jsonl", "refund", ("账单", "取消")), overrides=FAST, gate=None)
    ws.learn("plain", labelled(tmp_path / "b.jsonl", "parcel", ("late", "lost")), overrides=FAST, gate=None)
    measured = ws.matrix().score
    as_once(ws)
    shown = ws.matrix()
    place = {name: number for number, name in enumerate(shown.tasks)}
    assert [row[place["bill"]] for row in shown.score] == [None] * 3  # of version 1, and its task is of version 2
    assert [row[place["plain"]] for row in shown.score] == [1.0] * 3  # nothing changed for this one
    third = ws.learn(
        "more", labelled(tmp_path / "c.jsonl", "invoice", ("paid", "owed")), overrides=FAST, gate=Gate(tolerance=0.9)
    )
    evidence = ws.ledger.notes(third.entry)["evidence"]["tasks"]["bill"]
    assert sum(evidence["learned"]) / 4 == measured[1][place["bill"]] == first.scores["bill"].score
    assert ws.matrix().score[1][place["bill"]] == measured[1][place["bill"]]


@pytest.fixture
def model(tmp_path):
    """Makes the folder of a tiny model with the tokenizer of a kind."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(kind):
        tokenizer = chats.tokenizer(kind)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return make


@pytest.mark.parametrize(
    ("kind", "answers"), [("think", ("yes", "no")), ("cut", ("<think>a</think>yes", "no")), ("labels", ("<yes>", "<no>")),
                          ("turn", ("yes<|turn_end|>", "no"))]
)  # fmt: skip
def test_what_was_learned_by_heart_scores_right(kind, answers, model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", model(kind), dtype="float32")
    asked = ("is it spam?", "cancel the bill")
    turns = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        for q, a in zip(asked, answers, strict=True)
    ]
    rows = [{"messages": pair, "split": split} for split in ("train", "test") for pair in turns]
    settings = {"learning_rate": 0.005, "num_train_epochs": 150, "host": "loop", "lr_scheduler_type": "constant"}
    done = ws.learn(
        "spam", write(tmp_path / "t.jsonl", rows), recipe="full", overrides=settings, allow_leaks=True, gate=None
    )
    said = [answer.answer for answer in ws.predict(asked, task="spam")]
    assert done.scores["spam"].score == 1.0, said
    assert done.scores["spam"].scorer == "exact"
    assert said == [a.removeprefix("<think>a</think>").removesuffix("<|turn_end|>") for a in answers]
