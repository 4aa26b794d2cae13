"""Data with choices: detected by their columns, read by templates, trained on the right choice, refused with the line."""

import json

import pytest

from perdure.core.errors import BadInput, BadSpec
from perdure.core.rows import Row
from perdure.data.formats import detect, to_rows
from perdure.data.load import load_probe, load_task
from perdure.data.read import Record

ARC = {"prompt": "Question: Hot?", "choices": ["sun", "moon"], "gold": 0, "completion": "sun"}


def records(*rows):
    return [Record(row, f"f.jsonl:{line}") for line, row in enumerate(rows, start=1)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_template_makes_the_prompt_and_the_choices_follow_it():
    template = "{prompt}\nAnswer:"
    assert detect(records(ARC), template) == "choices"
    (row,) = to_rows(records(ARC), "choices", template=template)
    assert row.prompt == "Question: Hot?\nAnswer:"
    assert (row.choices, row.completion) == ((" sun", " moon"), " sun")


def test_a_mapped_completion_or_label_is_read_instead_of_the_choices():
    fields = records(ARC | {"answer": "sun"})
    mapped = {"completion": "answer"}
    taken = records(ARC | {"completion": "sun"})
    assert detect(fields, "{prompt}") == "choices"
    assert detect(taken, "{prompt}", mapped) == "prompt_completion"
    assert detect(taken, None, mapped) == "prompt_completion"


def test_a_template_that_names_the_choices_shows_them_by_letter_and_the_letters_are_chosen():
    (row,) = to_rows(
        records({**ARC, "choices": ["moon ", "sun", "lamp"], "gold": "sun"}),
        "choices",
        template="{prompt}\n{choices}\nAnswer:",
    )
    assert row.prompt == "Question: Hot?\nA. moon\nB. sun\nC. lamp\nAnswer:"
    assert (row.choices, row.gold, row.completion) == ((" A", " B", " C"), 1, " B")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gold": 2}, r"f.jsonl:2: gold is 2, and there are 2 choices; write the index .* from 0 to 1, or its text"),
        ({"gold": -1}, r"f.jsonl:2: gold is -1, and there are 2"),
        ({"gold": True}, r"f.jsonl:2: gold is True; write the index"),
        ({"gold": 0.5}, r"f.jsonl:2: gold is 0.5; write the index"),
        ({"gold": "1"}, r"f.jsonl:2: gold is '1', which none of choices are; write the index"),
        ({"gold": "sun", "choices": ["sun", "sun "]}, r"f.jsonl:2: gold is 'sun', which 2 of choices are"),
        ({"choices": ["sun"]}, r"f.jsonl:2: choices has 1 texts, and a choice needs at least 2"),
        ({"choices": "sun, moon"}, r"f.jsonl:2: choices is 'sun, moon'; write a list of texts"),
        ({"choices": ["sun", " "]}, r"f.jsonl:2: choices\[1\] is empty"),
        ({"choices": ["sun", 0.5]}, r"f.jsonl:2: choices\[1\] must be text, got the number 0.5; put it in quotes"),
        ({"choices": {"text": ["a"], "label": ["A"]}}, r"f.jsonl:2: choices is an object \(text, label\)"),
        ({"gold": None}, r"f.jsonl:2 has no gold, which choices needs"),
        ({"date": "March"}, r"f.jsonl:2: date is 'March'; write a date as 2021, 2021-03 or 2021-03-14"),
    ],
)
def test_rows_that_cannot_be_read_are_refused_with_their_line(change, says):
    with pytest.raises(BadInput, match=says):
        to_rows(records(ARC, {**ARC, **change}), "choices")


def test_more_choices_than_letters_are_refused_where_letters_are_wanted():
    many = {**ARC, "choices": [str(n) for n in range(27)]}
    with pytest.raises(BadInput, match=r"f.jsonl:1 has 27 choices, and there are 26 letters"):
        to_rows(records(many), "choices", template="{choices}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"choices": ["ran", "sat"]}, r"f.jsonl:1: choices has 2 texts for 2 contexts; write the one ending"),
        ({"gold": "Eve"}, r"gold is 'Eve', which none of contexts are"),
        ({"contexts": ["Ann"]}, r"contexts has 1 texts"),
    ],
)
def test_contexts_that_cannot_be_read_are_refused(change, says):
    with pytest.raises(BadInput, match=says):
        to_rows(records({"contexts": ["Ann", "Bob"], "choices": ["ran"], "gold": 0, **change}), "contexts")


def test_a_template_is_refused_for_contexts():
    with pytest.raises(BadSpec, match="`template` belongs to the format"):
        to_rows(records({"contexts": ["Ann", "Bob"], "choices": "ran", "gold": 0}), "contexts", template="{choices}")


def test_the_ending_of_contexts_is_the_same_whichever_is_right():
    fields = {"contexts": ["Ann", "Bob "], "choices": "ran"}
    rows = to_rows(records({**fields, "gold": 0}, {**fields, "gold": 1}), "contexts")
    assert [row.choices for row in rows] == [(" ran",), (" ran",)]
    assert rows[0].question == rows[1].question


def test_a_system_prompt_comes_before_every_context():
    fields = {"contexts": ["Ann", "Bob"], "choices": "ran", "gold": 1}
    (row,) = to_rows(records(fields), "contexts", system="Be kind.")
    assert row.contexts == ("Be kind.\n\nAnn", "Be kind.\n\nBob")
    assert row.prompt == row.contexts[1]


def test_group_and_date_are_read_where_they_are_mapped(tmp_path):
    rows = [{"question": "a", "answer": "b", "topic": "x", "year": 2021, "date": "never", "group": "no"}]
    settings = {"columns": {"prompt": "question", "completion": "answer", "group": "topic", "date": "year"}}
    (row,) = load_probe("t", write(tmp_path / "f.jsonl", rows), settings).test
    assert (row.group, row.date) == ("x", "2021")
    plain = [{"prompt": "a", "completion": "b", "date": "never", "group": "no"}]
    (row,) = load_probe("t", write(tmp_path / "g.jsonl", plain)).test
    assert (row.group, row.date) == ("", None)


def test_a_file_with_choices_is_a_task_that_learns_the_right_ones(tmp_path):
    rows = [
        {"prompt": f"Which is {n}?", "choices": [str(n), str(n + 1)], "gold": 0, "subject": "sums"} for n in range(9)
    ]
    task = load_task("t", write(tmp_path / "f.jsonl", rows), overrides={"columns": {"group": "subject"}})
    assert task.format == "choices"
    assert task.scorer == {"name": "choice"}
    assert task.choices == ()  # each row has its own
    assert {(row.completion, row.group) for row in task.train} <= {(f" {n}", "sums") for n in range(9)}
    assert type(task).from_json(json.loads(json.dumps(task.to_json())), task.train, (), task.test) == task


def test_a_column_that_is_not_read_is_named_with_its_use(tmp_path):
    rows = [{"prompt": f"Which is {n}?", "choices": ["1", "2"], "gold": 0, "subject": "sums"} for n in range(9)]
    task = load_task("t", write(tmp_path / "f.jsonl", rows))
    assert any("subject (9)" in text and "--columns group=subject" in text for text in task.notices)


def test_a_question_is_asked_of_a_task_with_choices(tmp_path):
    rows = [{"prompt": f"Which is {n}?", "choices": ["1", "2"], "gold": 0} for n in range(9)]
    path = write(tmp_path / "f.jsonl", rows)
    task = load_probe("t", path)
    assert task.request(Record({"prompt": "Hot?"}, "q")) == Row(prompt="Hot?", task="t")
    lettered = load_probe("t", path, {"template": "{prompt}\n{choices}\nAnswer:"})
    asked = lettered.request(Record({"prompt": "Hot?", "choices": ["sun", "moon"]}, "q"))
    assert asked == Row(prompt="Hot?\nA. sun\nB. moon\nAnswer:", task="t", source="q")
