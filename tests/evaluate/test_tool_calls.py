"""Tool calls in answers are compared as JSON, however a chat template writes them; sets of labels as sets."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.errors import BadSpec
from perdure.evaluate.scorers import get_scorer
from perdure.evaluate.tool_calls import calls_in, same_calls

ARGUMENTS = {"city": "Rome", "days": 2, "units": None}
HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 2, "units": null}}\n</tool_call>'
CALL = '["weather",{"city":"Rome","days":2,"units":null}]'


@pytest.mark.parametrize(
    "text",
    [
        HERMES,
        '{"name": "weather", "parameters": {"days": 2.0, "units": null, "city": "Rome"}}',
        "[TOOL_CALLS] " + json.dumps([{"name": "weather", "arguments": ARGUMENTS, "id": "abc123456"}]),
        json.dumps({"type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}),
        json.dumps({"tool_calls": [{"function": {"name": "weather", "arguments": ARGUMENTS}}]}),
        "weather" + json.dumps(ARGUMENTS),
        "<call>weather " + json.dumps(ARGUMENTS) + "</call>",
        "functions.weather:0" + json.dumps(ARGUMENTS),
        "Let me look.\nweather\n" + json.dumps(ARGUMENTS, indent=2),
    ],
)
def test_a_call_is_found_however_it_is_written(text):
    assert calls_in(text) == [CALL]
    assert get_scorer("tool_calls")(text, HERMES) == 1.0


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        (HERMES.replace("Rome", "Oslo"), 0.0),
        (HERMES.replace("weather", "wether"), 0.0),
        (HERMES.replace(": 2", ": true"), 0.0),
        (HERMES.replace(": 2", ': "2"'), 0.0),
        (HERMES.replace(', "units": null', ""), 0.0),
        (HERMES + HERMES, 0.0),
        (HERMES[:-20], 0.0),
        ("It is sunny.", 0.0),
        ("", 0.0),
        ("Sure.\n" + HERMES, 1.0),
    ],
)
def test_names_and_arguments_count_and_the_text_around_does_not(prediction, score):
    assert get_scorer("tool_calls")(prediction, HERMES) == score


def test_several_calls_are_compared_as_often_as_each_is_made():
    other = HERMES.replace("Rome", "Oslo")
    assert same_calls(HERMES + "\n" + other, other + "\n" + HERMES)
    assert not same_calls(HERMES + HERMES, HERMES + other)
    assert len(calls_in('weather{"city": "Rome"}weather{"city": "Oslo"}')) == 2


def test_an_answer_without_a_call_is_compared_as_text():
    score = get_scorer("tool_calls")
    assert score("It is  sunny.", "It is sunny.") == 1.0
    assert score("It rains.", "It is sunny.") == 0.0
    assert score(HERMES, "It is sunny.") == 0.0
    assert score("<function=weather>", "<function=weather>") == 1.0  # a template that writes no JSON
    assert calls_in('the answer is {"a": 1}') == []
    assert same_calls('{"a": 1}', "[1, 2]") is None


@given(st.text(alphabet='{}[]",:\\ a1\n', max_size=300))
def test_any_text_has_calls_or_none(text):
    assert isinstance(calls_in(text), list)


@pytest.mark.parametrize(
    "text", ["{" * 10**6, '{"a":' * 10**6, "[" * 10**6 + "]" * 10**6, '"' * 10**6, "a " * 10**6 + "{}"]
)
@pytest.mark.timeout(120)  # a reader whose work grows with the square of the text needs hours, this one a second
def test_hostile_text_of_megabytes_is_read_once(text):
    assert calls_in(text) == []


@pytest.mark.parametrize(
    ("prediction", "reference", "f1", "same"),
    [
        ("money, post", "post, money", 1.0, 1.0),
        ("post", "money, post", 2 / 3, 0.0),
        ("post, post", "post", 1.0, 1.0),
        ("mail", "post", 0.0, 0.0),
        ("", "post", 0.0, 0.0),
        ("none", "none", 1.0, 1.0),
        ("money,  post ,", "money, post", 1.0, 1.0),
        ("Post", "post", 0.0, 0.0),
        ("caf\u00e9", "cafe\u0301", 1.0, 1.0),
        ("", "", 1.0, 1.0),
    ],
)
def test_sets_of_labels(prediction, reference, f1, same):
    assert get_scorer("set_f1")(prediction, reference) == pytest.approx(f1)
    assert get_scorer("set_exact")(prediction, reference) == same


def test_options_of_sets():
    for name in ("set_f1", "set_exact"):
        assert get_scorer({"name": name, "ignore_case": True})("Post, MONEY", "money, post") == 1.0
        with pytest.raises(BadSpec, match="write true or false"):
            get_scorer({"name": name, "ignore_case": 1})
    with pytest.raises(BadSpec, match="it takes none"):
        get_scorer({"name": "tool_calls", "order": True})
