"""Suites that leave out rows that training would cut, and the two suites that do so."""

import json
from pathlib import Path

import pytest
import yaml

from perdure.bridges.models import find_model, load_tokenizer
from perdure.core.errors import BadInput, BadSpec
from perdure.data.encode import encode
from perdure.data.load import load_task
from perdure.methods.registry import load_recipe
from perdure.workflows.bench.records import LeftOut
from perdure.workflows.bench.suite_files import load_suite
from perdure.workflows.bench.text import run_text
from perdure.workflows.bench.whole_rows import WholeRows, max_length_of

SHARED = Path(__file__).parents[3] / "shared" / "data"
SHORT, LONG = 12, 60  # words of a prompt
ROWS = [
    {"text": " ".join(["word"] * words + [str(i)]), "label": "ab"[i % 2], "split": split}
    for split, start in (("train", 0), ("test", 20))
    for i, words in enumerate([SHORT] * 6 + [LONG] * 4, start)
]
SUITE = {
    "dtype": "float32",
    "too_long": "leave_out",
    "settings": {"max_length": 128, "num_train_epochs": 1},
    "tasks": [
        {
            "name": "one",
            "file": "rows.jsonl",
            "train": {"split": "train", "per_label": 3},
            "test": {"split": "test", "per_label": 2},
            "task": {"template": "Say: {text}\nIt is", "max_new_tokens": 2},
        }
    ],
}


@pytest.fixture
def suite(tiny_model, tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**SUITE, "model": str(tiny_model)}), encoding="utf-8")
    return load_suite(str(tmp_path / "mine.yaml"))


def drawn(suite, tokenizer, folder, max_length=128, seed=0):
    return WholeRows(tokenizer, max_length, folder).rows_of(suite.tasks[0], folder, seed)


def test_rows_that_training_would_cut_are_left_out_before_the_draw(suite, tiny_model, tmp_path):
    tokenizer = load_tokenizer(tiny_model)
    rows, left_out = drawn(suite, tokenizer, tmp_path)
    assert left_out == LeftOut(train=4, train_of=10, test=4, test_of=10)
    assert [row["split"] for row in rows] == ["train"] * 6 + ["test"] * 4  # as many as wanted: others took their place
    assert all(len(row["text"].split()) == SHORT + 1 for row in rows)
    assert drawn(suite, tokenizer, tmp_path)[0] == rows
    assert drawn(suite, tokenizer, tmp_path, seed=1)[0] != rows
    assert not list(tmp_path.glob("*candidates*"))


def test_the_length_of_a_row_is_that_of_its_prompt_its_answer_and_its_end(suite, tiny_model, tmp_path):
    tokenizer = load_tokenizer(tiny_model)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS[:6] + ROWS[10:16])), encoding="utf-8")
    task = load_task("one", tmp_path / "rows.jsonl", overrides=suite.tasks[0].task)
    longest = max(len(encode(row, tokenizer, 10_000)) for row in (*task.train, *task.test))
    assert drawn(suite, tokenizer, tmp_path, longest)[1] == LeftOut(0, 6, 0, 6)
    with pytest.raises(BadInput, match="each of the 6 test rows"):  # they are equally long
        drawn(suite, tokenizer, tmp_path, longest - 1)


def test_no_row_that_fits_is_an_error(suite, tiny_model, tmp_path):
    with pytest.raises(
        BadInput, match=r"one: each of the 10 train rows of rows\.jsonl is longer than max_length, 8 tokens"
    ):
        drawn(suite, load_tokenizer(tiny_model), tmp_path, max_length=8)


def test_a_run_says_how_many_rows_it_left_out(suite, tmp_path):
    (tmp_path / "scratch").mkdir()
    result = run_text(suite, load_recipe("naive", suite.settings), 0, tmp_path, tmp_path / "scratch", lambda task: None)
    assert result.left_out == {"one": LeftOut(4, 10, 4, 10)}
    assert len(result.items["one"].rows) == 4
    assert type(result).from_json(json.loads(json.dumps(result.to_json()))) == result


def test_what_is_too_long_is_cut_unless_the_suite_says_otherwise(suite, tmp_path):
    (tmp_path / "cut.yaml").write_text(
        yaml.safe_dump({**SUITE, "model": suite.model, "too_long": "cut"}), encoding="utf-8"
    )
    (tmp_path / "features.yaml").write_text(yaml.safe_dump({**SUITE, "kind": "features"}), encoding="utf-8")
    cut = load_suite(str(tmp_path / "cut.yaml"))
    assert "too_long" not in cut.model_dump(exclude_defaults=True)
    assert cut.learned != suite.learned
    with pytest.raises(BadSpec, match="leave out `too_long`"):
        load_suite(str(tmp_path / "features.yaml"))


@pytest.mark.model
@pytest.mark.data
@pytest.mark.skipif(not (SHARED / "cl").exists(), reason="the shared streams are not there")
@pytest.mark.parametrize(("name", "train", "test"), [("trace6", 150, 60), ("gen6", 64, 36)])
def test_a_generative_suite_has_as_many_rows_as_it_says(tmp_path, name, train, test):
    suite = load_suite(name)
    whole = WholeRows(load_tokenizer(find_model(suite.model)), max_length_of(suite), tmp_path)
    left = {}
    for task in suite.tasks:
        rows, left[task.name] = whole.rows_of(task, SHARED, 0)
        parts = {part: {row["prompt"] for row in rows if row["split"] == part} for part in ("train", "test")}
        assert [row["split"] for row in rows] == ["train"] * train + ["test"] * test
        assert not parts["train"] & parts["test"]
        assert all(row["completion"].strip() for row in rows)
    assert any(one.train for one in left.values())
    assert all(one.train < one.train_of * 0.7 for one in left.values())


@pytest.mark.model
@pytest.mark.data
@pytest.mark.skipif(not (SHARED / "cl").exists(), reason="the shared streams are not there")
def test_the_tasks_of_olora15_have_about_as_many_rows_each(tmp_path):
    suite = load_suite("olora15")
    whole = WholeRows(load_tokenizer(find_model(suite.model)), max_length_of(suite), tmp_path)
    for task in (suite.tasks[1], suite.tasks[13]):  # the fewest rows, and the longest
        rows, _ = whole.rows_of(task, SHARED, 0)
        assert 116 <= sum(row["split"] == "train" for row in rows) <= 200
        assert 50 <= sum(row["split"] == "test" for row in rows) <= 100
        assert len({row["prompt"] for row in rows}) > 0.95 * len(rows)
