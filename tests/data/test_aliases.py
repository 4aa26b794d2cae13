"""Rows of the format aliases: an answer that begins with the completion or another of its names is right."""

import json

import pytest

from perdure.core.errors import BadInput
from perdure.data.formats import detect, to_rows
from perdure.data.load import load_probe, load_task
from perdure.data.read import Record
from perdure.evaluate.checks import follows

HORSE = {"prompt": "What is a Garron?\nAnswer:", "completion": "Horse", "aliases": ["Horses ", "🐎", "Horse", ""]}


def record(**change):
    return Record({**HORSE, **change}, "f.jsonl:2")


def test_an_answer_is_right_that_begins_with_the_completion_or_another_name():
    (row,) = to_rows([record()], "aliases")
    (check,) = row.checks

    assert (row.prompt, row.completion) == (HORSE["prompt"], " Horse")
    assert json.loads(check.arguments) == {"options": ["Horse", "Horses", "🐎"]}
    assert [follows(check, text) for text in ("horses, I think", "🐎", "A cow", "")] == [True, True, False, False]


def test_without_other_names_the_completion_alone_is_right():
    (row,) = to_rows([record(aliases=[])], "aliases")

    assert json.loads(row.checks[0].arguments) == {"options": ["Horse"]}


def test_the_format_is_read_only_where_it_is_named():
    assert detect([record()]) == "prompt_completion"


def test_a_task_of_the_format_is_scored_by_its_checks(tmp_path):
    rows = [{**HORSE, "prompt": f"What is {n}?"} for n in range(8)]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    task = load_task("animals", path, overrides={"format": "aliases"})
    assert (task.format, task.scorer) == ("aliases", {"name": "checks"})
    assert {row.completion for row in task.train} == {" Horse"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"aliases": "Horse"}, r"f.jsonl:2: aliases is 'Horse'; write a list of texts"),
        ({"aliases": ["Horse", 3]}, r"f.jsonl:2: aliases is \['Horse', 3\]; write a list of texts"),
        ({"completion": " "}, r"f.jsonl:2: completion is empty"),
        ({"prompt": 0.5}, r"f.jsonl:2: prompt must be text, got the number 0.5"),
        ({"aliases": None}, r"f.jsonl:2 has no aliases, which aliases needs"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_line(change, says):
    with pytest.raises(BadInput, match=says):
        to_rows([record(**change)], "aliases")


@pytest.mark.parametrize(
    ("format", "fields", "scorer"),
    [
        ("checks", {"instruction_ids": ["punctuation:no_comma"]}, "checks"),
        ("aliases", {"completion": "x", "aliases": ["y"]}, "checks"),
        ("programs", {"test": "assert f() == 1", "entry_point": "f"}, "programs"),
    ],
)
def test_formats_that_are_scored_by_checks_have_their_scorer_and_a_question_has_the_prompt_alone(
    tmp_path, format, fields, scorer
):
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"def f{n}():", **fields}) + "\n" for n in range(3)), "utf-8")
    task = load_probe("t", path, {"format": format})

    assert task.scorer == {"name": scorer}
    assert task.request(Record({"prompt": "def g():"}, "q")) == task.prompt_row("def g():")
    assert task.request(Record({"prompt": "def g():", **fields}, "q")) == task.prompt_row("def g():")
