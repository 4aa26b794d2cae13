"""General rows that the base model writes itself: the same in every run, written once, and rehearsed like those of a file."""

import json
import shutil
from dataclasses import replace

import pytest

from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.data.sources import GENERAL_MADE
from perdure.data.spec import load_spec, make_spec
from perdure.workflows.learn import general_made
from perdure.workflows.learn.general_made import Writing, made_general, user_turn, write_general

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}
REHEARSED = {**FAST, "methods.instruction_replay.mix": 0.5}
FEW = Writing(rows=5, batch=6, batches=8, instruction_tokens=24, answer_tokens=4)


@pytest.fixture
def ws(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards="none")


@pytest.fixture
def easy(monkeypatch, tmp_path):
    """Filters that let the words of random weights pass, few rows, and a cache of this test alone."""
    monkeypatch.setattr(general_made, "has_form", lambda text, marks: bool(text))
    monkeypatch.setattr(general_made, "sound", lambda *_, **__: True)
    real = general_made.answers

    def filled(*given):
        found = real(*given)
        return replace(found, texts=[text if text.strip() else "fine" for text in found.texts])

    monkeypatch.setattr(general_made, "answers", filled)
    monkeypatch.setattr(general_made.made_general, "__defaults__", (FEW, None))
    monkeypatch.setenv("PERDURE_CACHE", str(tmp_path / "cache"))


def write(path, n=12):
    rows = [{"text": f"about {i}", "label": "refund" if i % 2 else "parcel"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_two_runs_write_the_same_rows_and_another_seed_others(ws, easy):
    first, second = (write_general(ws.runtime, 0, FEW) for _ in range(2))
    assert first.rows == second.rows
    assert len(first.rows) == 5
    assert len({row.instruction for row in first.rows}) == 5
    assert write_general(ws.runtime, 1, FEW).rows != first.rows


def test_more_rows_begin_with_the_same(ws, easy):
    few, more = (write_general(ws.runtime, 0, Writing(**{**vars(FEW), "rows": rows})).rows for rows in (3, 7))
    assert more[:3] == few


def test_the_counts_say_what_was_left_out(ws, easy, monkeypatch):
    monkeypatch.setattr(general_made, "has_form", lambda text, marks: len(text) % 2 == 0)
    found = write_general(ws.runtime, 0, FEW)
    assert found.sampled % 6 == 0
    assert found.sampled > found.ended >= found.formed >= found.different >= len(found.rows)
    assert all(len(row.instruction) % 2 == 0 for row in found.rows)


def test_rows_are_written_once_for_all_workspaces(ws, easy, tiny_model, tmp_path, monkeypatch):
    rows, (notice,) = made_general(ws.session)
    assert "5 written by the base model" in notice
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32", guards="none")
    monkeypatch.setattr(general_made, "write_general", None)
    assert made_general(other.session) == (rows, [])
    assert [row.messages[0].role for row in rows] == ["user"] * 5


def test_a_cache_that_was_cut_off_is_written_again(ws, easy, tmp_path):
    rows, _ = made_general(ws.session)
    (file,) = (tmp_path / "cache" / "general").glob("*.json")
    file.write_text(file.read_text()[:20])
    assert made_general(ws.session)[0] == rows


def test_the_prompt_is_the_template_up_to_the_users_turn(ws):
    prefix, stops, marks = user_turn(ws.runtime)
    tokenizer = ws.tokenizer
    assert tokenizer.decode(prefix) == "<|im_start|>user\n"
    assert {tokenizer.eos_token_id, tokenizer("\n")["input_ids"][0]} <= set(stops)
    assert "<|im_end|>" in marks


def test_a_model_without_a_template_is_told_what_to_do(ws):
    ws.tokenizer.chat_template = None
    with pytest.raises(BadInput, match="needs a chat template"):
        user_turn(ws.runtime)


def test_a_model_that_writes_no_instruction_is_told_what_to_do(ws, easy, monkeypatch):
    monkeypatch.setattr(general_made, "sound", lambda *_, **__: False)
    with pytest.raises(BadInput, match="name a file with general data instead"):
        write_general(ws.runtime, 0, FEW)


def test_made_is_a_word_and_a_file_of_that_name_is_written_otherwise(tmp_path):
    given = {"name": "task", "train": "train.jsonl"}
    assert make_spec({**given, "general": "made"}, "a test").general == GENERAL_MADE
    assert str(make_spec({**given, "general": "./made"}, "a test").general) == "made"
    task = tmp_path / "task.yaml"
    task.write_text("train: train.jsonl\ngeneral: made\n")
    assert load_spec(task).general == GENERAL_MADE
    task.write_text("train: train.jsonl\ngeneral: ./made\n")
    assert load_spec(task).general == tmp_path / "made"
    stored = make_spec({**given, "general": "made"}, "a test").model_dump(mode="json")
    assert make_spec(stored, "a test").general == GENERAL_MADE


def test_made_rows_are_rehearsed_and_recorded_by_their_hashes(ws, easy, tmp_path):
    path = write(tmp_path / "rows.jsonl")
    copy = Workspace.open(shutil.copytree(ws.ledger.root, tmp_path / "copy"))
    done = ws.learn("task", path, overrides=REHEARSED, gate=None, settings={"general": "made"})
    rows = {row.hash for row in made_general(ws.session)[0]}
    memory = ws.ledger.manifest_rows(ws.ledger.entry(done.entry).memory)
    kept = {row.hash for item, row in memory if item.pool == "general"}
    assert kept
    assert kept <= rows
    assert copy.learn("task", path, overrides=REHEARSED, gate=None, settings={"general": "made"}).entry == done.entry
    other = Workspace.open(shutil.copytree(copy.ledger.root, tmp_path / "without"))
    other.rollback("base")
    assert other.learn("task", path, overrides=REHEARSED, gate=None).entry != done.entry


def test_nothing_is_written_where_no_method_rehearses(ws, easy, tmp_path, monkeypatch):
    monkeypatch.setattr(general_made, "write_general", None)
    given = {"recipe": "naive", "overrides": FAST, "settings": {"general": "made"}}
    planned = ws.plan("task", write(tmp_path / "rows.jsonl"), **given)
    assert planned.general == ()
    assert any("no method rehearses the general rows" in text for text in planned.notices)


def test_a_row_that_a_test_row_asks_is_not_rehearsed(ws, easy, tmp_path):
    rows, _ = made_general(ws.session)
    data = [{"prompt": rows[0].messages[0].content, "completion": "a", "split": "test"}]
    data += [{"prompt": f"about {i}", "completion": "b", "split": "train"} for i in range(12)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data), "utf-8")
    planned = ws.plan("task", path, overrides=REHEARSED, settings={"general": "made"})
    assert [row.hash for row in planned.general] == [row.hash for row in rows[1:]]


@pytest.mark.model
def test_the_embedded_model_writes_instructions(tmp_path):
    ws = Workspace.init(tmp_path / "ws", "smollm2-135m", guards="none")
    few = Writing(rows=3, batch=8, answer_tokens=8)
    first, second = (write_general(ws.runtime, 0, few) for _ in range(2))
    assert first.rows == second.rows
    assert len(first.rows) == 3
