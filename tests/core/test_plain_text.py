"""Text from data: what steers is shown, the rest is left alone, and quotations are short."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.plain_text import QUOTED, clipped, quoted, visible, visible_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("safe\rhidden", "safe\\x0dhidden"),
        ("a\x08b\x7f\x9b2J", "a\\x08b\\x7f\\x9b2J"),
        ("a\u202eb\u2066c\u2069", "a\\u202eb\\u2066c\\u2069"),
        ("a\u2028b\ufeff", "a\\u2028b\\ufeff"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_steers_a_terminal_is_shown(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text", ["ä ß 語 한\t\n", "👩\u200d💻", "שלום\u200f", "می\u200cخواهم", "[red]x[/red]", "a\\x1b"]
)
def test_what_people_write_is_left_alone(text):
    assert visible(text) == text


@given(st.text())
def test_json_made_visible_says_the_same(text):
    shown = visible_json(json.dumps({"a": text}, ensure_ascii=False))
    assert json.loads(shown) == {"a": text}
    assert visible(shown) == shown


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        [["x" * 999] * 99] * 99,
        {f"k{n}": "v" * 500 for n in range(999)},
        [10**5000],
        "\x1b" * 999,
        b"x" * 999,
    ],
    ids=range(6),
)
def test_a_quotation_is_short_whatever_is_quoted(value):
    assert len(quoted(value)) <= 8 * QUOTED
    assert visible(quoted(value)) == quoted(value)


@pytest.mark.parametrize("value", ["text", 3, None, True, ["a"], {"a": 1}, 2.5])
def test_a_short_value_is_quoted_as_it_is(value):
    assert quoted(value) == repr(value)


def test_clipped_keeps_what_fits():
    assert clipped("abc", 3) == "abc"
    assert clipped("abcd", 3) == "ab…"
