"""Another model as teacher: asked once a row, kept beside new and remembered rows, and followed by the student."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cautioned import without_size
from perdure import Workspace
from perdure.bridges.runtime import Runtime
from perdure.bridges.teacher import teacher_top_k
from perdure.core.errors import BadInput
from perdure.data.encode import Encoded, encode
from perdure.workflows.learn.remember import LedgerMemory

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "memory_per_label": 2}
KINDS = ("refund", "parcel")


def model_like(student: Path, folder: Path, *, more: int = 0) -> Path:
    """Make a wider model with the student's tokenizer, `more` rows of padding in its vocabulary, and weights of its own."""
    config = LlamaConfig.from_pretrained(student)
    config.hidden_size, config.intermediate_size, config.vocab_size = 48, 96, config.vocab_size + more
    config.head_dim = 12
    torch.manual_seed(7)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(student).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tiny_model, tmp_path_factory):
    return model_like(tiny_model, tmp_path_factory.mktemp("teacher"), more=5)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [
        {"text": f"where is {kind} {i}", "label": kind, "split": "test" if i > 3 else "train"}
        for kind in KINDS
        for i in range(6)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def learned(tiny_model, folder, rows, **distill):
    recipe = folder.with_suffix(".yaml")
    methods = {"replay": {}, **({"distill": distill} if distill else {})}
    recipe.write_text(json.dumps({"methods": methods}), encoding="utf-8")  # JSON is YAML
    ws = Workspace.init(folder, str(tiny_model), dtype="float32")
    done = ws.learn("kinds", rows, recipe=str(recipe), overrides=FAST, gate=None)
    return ws, ws.ledger.notes(done.entry)["record"]


def skill(ws):
    """Hash of what was learned."""
    return ws.ledger.slots(ws.ledger.resolve("head"))["skill"]


def test_new_and_remembered_rows_carry_what_the_other_model_says_and_the_student_follows(
    tiny_model, teacher, rows, tmp_path
):
    ws, record = learned(tiny_model, tmp_path / "both", rows, teacher=str(teacher), on="both", top_k=8, strength=5.0)
    plain, _ = learned(tiny_model, tmp_path / "plain", rows)
    assert all(beat["pull"] > 0 for _, beat in record["heartbeats"]["distill"])
    assert [said for said in without_size(record["warnings"]) if "did not rise" not in said] == []
    assert skill(ws) != skill(plain)
    memory = LedgerMemory.at(ws.ledger, ws.ledger.resolve("head"))
    kept = memory.columns[f"teacher@{teacher}"]
    assert len(kept) == len(memory.rows) == 4
    other = Runtime(teacher, "float32", "cpu")
    said = other.top_k([encode(row, other.base.tokenizer, 512) for row in (own.row for own in memory.rows)], 8)
    for item, expected in zip([own.item for own in memory.rows], said, strict=True):
        torch.testing.assert_close(kept[item.row].logprob.float(), expected.logprob, rtol=1e-2, atol=1e-2)


def test_in_the_next_task_the_remembered_rows_teach_too(tiny_model, teacher, rows, tmp_path):
    ws, _ = learned(tiny_model, tmp_path / "ws", rows, teacher=str(teacher), on="memory", top_k=8)
    second = tmp_path / "second.jsonl"
    second.write_text(rows.read_text().replace("where is", "please find"), encoding="utf-8")
    done = ws.learn("more", second, recipe=str(tmp_path / "ws.yaml"), overrides=FAST, gate=None)
    beats = ws.ledger.notes(done.entry)["record"]["heartbeats"]["distill"]
    assert all(beat["rows"] > 0 and beat["loss"] > 0 for _, beat in beats)
    assert len(LedgerMemory.at(ws.ledger, ws.ledger.resolve("head")).columns[f"teacher@{teacher}"]) == 8


def test_asked_for_everything_it_speaks_of_no_token_the_student_does_not_have(tiny_model, teacher):
    student = Runtime(tiny_model, "float32", "cpu")
    known = student.model.get_input_embeddings().num_embeddings
    tokens = student.base.tokenizer("where is my parcel")["input_ids"]
    row = Encoded(tuple(tokens), (*[False] * (len(tokens) - 2), True, True))
    (said,) = teacher_top_k(str(teacher), [row], 2**31 - 1, student)
    assert said.index.shape == (row.targets, known - 1)
    assert int(said.index.max()) < known


def test_a_teacher_with_another_tokenizer_is_refused(tiny_model, tmp_path):
    folder = model_like(tiny_model, tmp_path / "stranger")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BadInput, match="another tokenizer"):
        teacher_top_k(str(folder), [], 8, Runtime(tiny_model, "float32", "cpu"))
