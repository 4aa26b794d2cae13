"""Rows: their identity, which the fields that came later leave as it was, and their JSON."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.canonical import canonical_json
from perdure.core.rows import Check, Message, Row

TEXT = st.text(max_size=8)
ARGUMENTS = st.dictionaries(TEXT, st.integers(), max_size=2).map(lambda found: canonical_json(found) if found else "")
MESSAGES = st.builds(Message, TEXT, TEXT, ARGUMENTS, st.booleans())
ROWS = st.builds(
    Row,
    prompt=TEXT,
    completion=TEXT,
    messages=st.lists(MESSAGES, max_size=2).map(tuple),
    label=st.none() | TEXT,
    task=TEXT,
    source=TEXT,
    extra=ARGUMENTS,
    choices=st.lists(TEXT, max_size=3).map(tuple),
    contexts=st.lists(TEXT, max_size=3).map(tuple),
    gold=st.none() | st.integers(0, 3),
    checks=st.lists(st.builds(Check, TEXT, ARGUMENTS), max_size=2).map(tuple),
    date=st.none() | TEXT,
    group=TEXT,
)
ARC = Row("Question: hot?\nAnswer:", " sun", choices=(" sun", " moon"), gold=0)


@given(ROWS)
def test_a_row_survives_its_json(row):
    stored = json.loads(canonical_json(row.to_json()))
    again = Row.from_json(stored)
    assert again == row
    assert (again.hash, again.question) == (row.hash, row.question)
    assert again.to_json() == row.to_json()


def test_identity_and_json_of_a_row_without_the_later_fields_are_those_of_the_first_version():
    plain = Row("Question", " answer", label="x", task="t", source="f:1")
    assert plain.hash == "99caa33d022f76d367e1efe0454ee3ab460850db324dcb0700931e5143c35fbf"
    assert plain.question == "377761d7f65ce6a69d514ca955c272fd22e141c4af0323c114ca0654e9d01505"
    chat = Row(messages=(Message("user", "Hi"), Message("assistant", "Yes", train=False)), extra='{"tools":[]}')
    assert chat.hash == "d335909f3c481c86488a767f9cc4e72e1266a72b8b59400f15e6b1f15d7bce3c"
    assert chat.question == "12dc6489c67a53369faa61b321a3f21f63f02bdb5b4e2e7bcdf20b7bb0b82b44"
    assert plain.to_json() == {
        "prompt": "Question",
        "completion": " answer",
        "messages": (),
        "label": "x",
        "task": "t",
        "source": "f:1",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"choices": (" moon", " sun")},
        {"contexts": ("a", "b")},
        {"gold": 1},
        {"gold": None},
        {"checks": (Check("punctuation:no_comma"),)},
    ],
)
def test_choices_contexts_gold_and_checks_are_part_of_the_hash(change):
    assert replace(ARC, **change).hash != ARC.hash


def test_the_first_choice_can_be_right():
    assert ARC.to_json()["gold"] == 0
    assert Row.from_json(ARC.to_json()).gold == 0


def test_date_and_group_are_no_part_of_the_identity():
    dated = replace(ARC, date="2021-03", group="physics")
    assert (dated.hash, dated.question) == (ARC.hash, ARC.question)


def test_the_same_choices_in_another_order_or_with_another_answer_are_the_same_question():
    turned = replace(ARC, choices=(" moon", " sun"), gold=1)
    assert turned.question == ARC.question == replace(ARC, gold=1, checks=(Check("punctuation:no_comma"),)).question
    assert turned.question != replace(ARC, choices=(" sun", " lamp")).question


def test_a_question_with_choices_is_found_where_its_prompt_was_learned_without_them():
    learned = Row(ARC.prompt, ARC.completion)
    assert learned.question in ARC.questions
    assert ARC.question in ARC.questions
    assert learned.questions == (learned.question,)


def test_which_context_is_right_does_not_change_the_question():
    pair = Row("he", " ran", choices=(" ran",), contexts=("he", "she"), gold=0)
    other = Row("she", " ran", choices=(" ran",), contexts=("he", "she"), gold=1)
    assert pair.question == other.question
    assert pair.hash != other.hash
    assert Row("he", " ran").question in pair.questions


def test_arguments_of_a_check_are_read_from_json():
    assert Check("length_constraints:number_words", '{"num_words":10}').given == {"num_words": 10}
    assert Check("punctuation:no_comma").given == {}
