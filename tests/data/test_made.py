"""What made guards consist of: their numbers, that nothing occurs twice, and that every check can be decided."""

import re
from collections import Counter

import pytest

from perdure.core.errors import BadInput
from perdure.core.rows import Message, Row
from perdure.data.drawn_choices import with_drawn_choices
from perdure.data.made import MADE, made_rows, plain_text
from perdure.evaluate.checks import follows, refuse_wrong

CHECKED = [name for name in MADE if name != "programs" and any(row.checks for row in made_rows(name))]


@pytest.mark.parametrize("name", MADE)
def test_rows_are_the_same_each_time_and_none_occurs_twice(name):
    rows = made_rows(name)

    assert rows == made_rows(name)
    assert len({row.hash for row in rows}) == len(rows)
    assert len({row.question for row in rows}) == len(rows)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'arithmetic'"):
        made_rows("aritmetic")


@pytest.mark.parametrize("name", CHECKED)
def test_every_check_can_be_decided_and_no_placeholder_is_left(name):
    for row in made_rows(name):
        text = row.messages[0].content if row.messages else row.prompt
        assert not re.search(r"\{\w+\}", text), text
        for check in row.checks:
            refuse_wrong(check)


def test_instructions_are_forty_kinds_of_five_topics_with_one_check_each():
    rows = made_rows("instructions")

    assert set(Counter(row.group for row in rows).values()) == {5}
    assert len({row.group for row in rows}) == 40
    assert all(len(row.checks) == 1 and row.answer == "" for row in rows)


ANSWERS = {
    "no comma": "It rains a lot here.",
    "numbered list": "1. Cat\n2. Dog\n3. Hen",
    "json keys": '{"name": "Ann", "age": 31}',
    "copy": "The blue door is open.",
    "copy with a change": "The cat sleeps all day.",
    "tag": "<b>Paris</b>",
    "table": "| Fruit | Colour |\n| --- | --- |",
    "first word": "When it rains, we stay in.",
    "count": "1, 2, 3, 4, 5",
    "start phrase": "The best thing about sleep is rest.",
    "hashtags": "#dog #walk #fun",
    "dialogue": "A: It rains.\nB: I know.",
}


@pytest.mark.parametrize("group", ANSWERS)
def test_a_right_answer_follows_the_first_topic_of_a_kind_and_another_text_does_not(group):
    row = next(row for row in made_rows("instructions") if row.group == group)

    assert follows(row.checks[0], ANSWERS[group])
    assert not follows(row.checks[0], "Well, this is, as you see, some other text: a, b, c.")


def test_drift_has_40_requests_and_20_beginnings():
    rows = made_rows("drift")

    assert sum(bool(row.messages) for row in rows) == 40
    assert sum(bool(row.prompt) for row in rows) == 20


def test_manners_says_what_is_expected():
    assert Counter(row.label for row in made_rows("manners")) == {"answer": 30, "decline": 15}


def test_a_fact_has_four_choices_of_its_relation_at_all_places():
    rows = made_rows("facts")
    answers = {label: {row.completion for row in rows if row.label == label} for label in {row.label for row in rows}}

    assert all(len(set(row.choices)) == 4 and row.choices[row.gold] == row.completion for row in rows)
    assert all(set(row.choices) <= answers[row.label] for row in rows)
    assert min(Counter(row.gold for row in rows).values()) > len(rows) / 8


def test_a_free_answer_is_right_that_begins_with_the_object():
    row = next(row for row in made_rows("facts_free") if "France is" in row.prompt)

    assert follows(row.checks[0], " Paris, the city of light")
    assert not follows(row.checks[0], " a country with the capital Paris")
    assert row.choices == ()


def test_programs_are_thirty_functions_whose_own_solutions_pass_their_tests():
    rows = [plain_text(row) for row in made_rows("programs")]

    assert len(rows) == 30
    for row in rows:
        assert row.prompt.startswith("def ")
        exec(
            row.prompt + row.completion + row.checks[0].given["test"], {}
        )  # text of our own, see data/guards/programs.jsonl
        with pytest.raises(AssertionError):
            exec(row.prompt + "    return None\n" + row.checks[0].given["test"], {})


FACTS = tuple(Row(prompt=f"{n} is", completion=f" {n % 5}", label="rest") for n in range(20))


def test_drawn_choices_are_answers_of_the_same_label_whatever_the_order_of_the_rows():
    rows = with_drawn_choices((*FACTS, Row(prompt="x is", completion=" y", label="alone")), 4)

    assert len(rows) == 20  # the only row of its label has nothing to choose from
    assert all(len(set(row.choices)) == 4 and row.choices[row.gold] == row.completion for row in rows)
    assert {text for row in rows for text in row.choices} == {f" {n}" for n in range(5)}
    assert {row.prompt: row.choices for row in with_drawn_choices(FACTS[::-1], 4)} == {
        row.prompt: row.choices for row in rows
    }
    assert {len(row.choices) for row in with_drawn_choices(FACTS, 9)} == {5}


def test_rows_without_a_label_or_with_one_answer_alone_have_no_choices_to_draw():
    with pytest.raises(BadInput, match="no label, by which wrong choices are drawn"):
        with_drawn_choices([Row(prompt="a", completion="b")], 4)
    with pytest.raises(BadInput, match="nothing to choose from"):
        with_drawn_choices([Row(prompt="a", completion="b", label="c")], 4)


def asked(row):
    """The question of a row, without the examples before it."""
    return row.prompt.rsplit("Question: ", 1)[1].removesuffix("\nAnswer:")


def test_sums_are_right():
    sums = [re.fullmatch(r"What is (\d+) ([-+*]) (\d+)\?", asked(row)) for row in made_rows("arithmetic")]
    results = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}

    assert sum(match is not None for match in sums) == 130
    for row, match in zip(made_rows("arithmetic"), sums, strict=True):
        if match:
            assert int(row.completion) == results[match[2]](int(match[1]), int(match[3])) >= 0


def test_the_answer_of_a_word_problem_is_made_of_its_two_numbers():
    rows = [row for row in made_rows("arithmetic") if not asked(row).startswith("What is")]

    assert len(rows) == 80
    for row in rows:
        a, b = map(int, re.findall(r"\d+", asked(row)))
        assert int(row.completion) in (a + b, a - b, a * b)


def test_a_request_as_plain_text_has_its_words_on_a_line_of_their_own():
    asked = Row(messages=(Message("user", "Name a bird."), Message("assistant", "")), group="birds")

    assert plain_text(asked) == Row(prompt="Name a bird.\n", group="birds")
    assert plain_text(Row(prompt="Once")) == Row(prompt="Once")
