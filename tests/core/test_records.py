"""The JSON form of records, and what is said of JSON that is none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from perdure.core.errors import BrokenStore
from perdure.core.records import (
    BadRecord,
    JsonObject,
    Record,
    from_store,
    in_stored_order,
    omitted,
    omitted_mapping,
    written_as,
)


@dataclass(frozen=True)
class Part(Record):
    name: str
    drop: float
    more: int | None = None


@dataclass(frozen=True)
class Whole(Record):
    verdict: Literal["pass", "fail"]
    parts: tuple[Part, ...]
    curve: tuple[tuple[int, float], ...] = ()
    by_name: Mapping[str, Part] = field(default_factory=dict)
    strict: bool = False
    note: str | None = omitted(None)
    free: JsonObject = field(default_factory=dict)
    readings: Mapping[str, tuple[float, ...]] = omitted_mapping()


WHOLE = Whole(
    "pass", (Part("a", 1), Part("b", 0.5, 3)), ((0, 1.5),), {"c": Part("c", -1.0)}, free={"any": [1, {"x": None}]}
)


def test_the_keys_are_the_fields_in_their_order_and_numbers_stay_as_they_are():
    text = json.dumps(WHOLE.to_json())
    assert text == (
        '{"verdict": "pass", "parts": [{"name": "a", "drop": 1, "more": null}, {"name": "b", "drop": 0.5, "more": 3}], '
        '"curve": [[0, 1.5]], "by_name": {"c": {"name": "c", "drop": -1.0, "more": null}}, "strict": false, '
        '"free": {"any": [1, {"x": null}]}}'
    )
    assert Whole.from_json(json.loads(text)) == WHOLE
    assert json.dumps(Whole.from_json(json.loads(text)).to_json()) == text


def test_a_key_that_is_a_word_of_python_has_a_field_of_another_name():
    @dataclass(frozen=True)
    class Moved(Record):
        source: str = field(metadata=written_as("from"))
        to: str

    assert Moved("a", "b").to_json() == {"from": "a", "to": "b"}
    assert Moved.from_json({"from": "a", "to": "b"}) == Moved("a", "b")
    with pytest.raises(BadRecord, match="source is not known"):
        Moved.from_json({"source": "a", "to": "b"})
    with pytest.raises(BadRecord, match="from is missing"):
        Moved.from_json({"to": "b"})


def test_fields_that_came_later_have_their_defaults():
    old = Whole.from_json({"verdict": "fail", "parts": [{"name": "a", "drop": 0.0}]})
    assert old == Whole("fail", (Part("a", 0.0),))
    assert "note" not in old.to_json()


def test_an_omitted_mapping_is_written_where_it_has_a_value():
    assert "readings" not in WHOLE.to_json()
    read = Whole("fail", (), readings={"nats": (0.5, 1)})
    assert read.to_json()["readings"] == {"nats": [0.5, 1]}
    assert Whole.from_json(read.to_json()) == read


def test_an_omitted_field_is_written_where_it_has_a_value():
    noted = Whole("fail", (), note="why")
    assert noted.to_json()["note"] == "why"
    assert Whole.from_json(noted.to_json()) == noted


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verdict": "maybe"}, "verdict is 'maybe', not one of pass, fail"),
        ({"strict": 1}, "strict is 1, not true or false"),
        ({"parts": {}}, "parts is {}, not a list"),
        ({"parts": [3]}, "parts[0] is 3, not an object"),
        ({"parts": [{"name": "a"}]}, "parts[0].drop is missing"),
        ({"parts": [{"name": "a", "drop": "x"}]}, "parts[0].drop is 'x', not a number"),
        ({"parts": [{"name": "a", "drop": True}]}, "parts[0].drop is True, not a number"),
        ({"parts": [{"name": "a", "drop": 1.0, "more": 0.5}]}, "parts[0].more is 0.5, not a whole number"),
        ({"curve": [[1]]}, "curve[0] is [1], not a list of 2"),
        ({"by_name": {"c": {"name": 3, "drop": 0}}}, "by_name.c.name is 3, not a text"),
        ({"speed": 1}, "speed is not known"),
        ({"note": 3}, "note is 3, not"),
    ],
)
def test_json_of_another_shape_is_refused_with_its_place(change, says):
    with pytest.raises(BadRecord) as error:
        Whole.from_json({**WHOLE.to_json(), **change})
    assert str(error.value).startswith(says)


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(BadRecord, match="not an object"):
        Whole.from_json(data)


def test_a_store_with_a_damaged_record_is_named_with_the_place_and_what_to_do():
    with pytest.raises(BrokenStore, match=r"note 'x' of entry 12 .*parts is missing.*upgrade perdure, or restore"):
        from_store(Whole, {"verdict": "pass"}, "note 'x' of entry 12")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_at_all_is_a_record_or_a_bad_record(value: JsonValue):
    for data in (value, {"verdict": "pass", "parts": value}, {"verdict": "pass", "parts": [], "by_name": value}):
        try:
            made = Whole.from_json(data)
        except BadRecord:
            continue
        assert Whole.from_json(made.to_json()) == made


@given(json_values)
def test_stored_order_sorts_keys_and_changes_nothing_else(value: JsonValue):
    assert json.dumps(in_stored_order(value)) == json.dumps(value, sort_keys=True)
