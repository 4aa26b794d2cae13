"""JSON within bounds, each name once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.plain_json import DEPTH, BadJson, read_json, read_json_file


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested deeper", None),
        ('{"a":' * 500 + "1" + "}" * 500, "nested deeper", None),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested deeper", None),
        ("9" * 5000, "more digits", None),
        ('{"a": [-' + "9" * 4301 + "]}", "more digits", None),
        ('{"a": 1, "b": 2, "a": 3}', "'a' is named twice in one object", None),
        ('{"x": {"a": 1, "a": 1}}', "named twice", None),
        ('[\n1,\n"a', "Unterminated string", 3),
        ('{"a" 1}', "Expecting ':'", 1),
        ("", "Expecting value", 1),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_hostile_and_broken_texts_are_one_error(text, problem, line):
    with pytest.raises(BadJson) as caught:
        read_json(text)
    assert problem in caught.value.problem
    assert caught.value.line == line
    assert len(str(caught.value)) < 200


def test_nesting_and_numbers_within_bounds_are_read():
    assert read_json("[" * DEPTH + "]" * DEPTH)
    assert read_json("9" * 4000) == int("9" * 4000)


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), lambda inner: st.lists(inner)))
def test_what_json_writes_is_read_as_it_was(value):
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'["\xff"]', "not in UTF-8 \\(byte 3\\)"),
        (b'["a"', "Expecting ',' delimiter"),
        (b"[" + b" " * 99 + b"]", "larger than 100 bytes"),
    ],
)
def test_a_file_is_one_error_too(tmp_path, data, problem):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(BadJson, match=problem):
        read_json_file(tmp_path / "a.json", 100)


def test_a_file_of_the_most_bytes_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[" + b" " * 98 + b"]")
    assert read_json_file(tmp_path / "a.json", 100) == []
