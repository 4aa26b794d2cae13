"""Types of method fields, with the ranges that pydantic checks, and what a reader is shown of a field."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import Field, JsonValue, TypeAdapter

from perdure.core.records import Record

LARGEST = 10**9  # of a factor: beyond it float32 has no digits left for the loss
MANY = 10**7  # of rows or log-probabilities: no memory holds more

Strength = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]  # factor of a penalty; 0 switches it off
Share = Annotated[float, Field(ge=0, le=1)]  # part of a whole
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]  # part of a whole that leaves something of it
ShareAboveZero = Annotated[float, Field(gt=0, le=1)]
AboveZero = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]  # what is divided by, or a largest value
Temperature = Annotated[float, Field(gt=1e-4, le=LARGEST, allow_inf_nan=False)]  # divides log-probabilities
Count = Annotated[int, Field(ge=0, le=MANY)]  # a number of rows
Positive = Annotated[int, Field(ge=1, le=MANY)]  # a number that cannot be none

BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


@dataclass(frozen=True)
class FieldAbout(Record):
    """What a reader is shown of a field.

    Args:
        type: Its type, as Python writes it.
        range: What its values are checked against, in words; None where all of the type are taken.
        default: Its default.
        about: What it means.
    """

    type: str
    range: str | None
    default: JsonValue
    about: str


def described(kind: type) -> dict[str, FieldAbout]:
    """Return what a reader is shown of each field of a pydantic model or dataclass, by name."""
    schema, hints = TypeAdapter(kind).json_schema(), get_type_hints(kind)
    return {
        name: FieldAbout(
            inspect.formatannotation(hints[name]).removeprefix("typing."),
            _range(known),
            known.get("default"),
            known.get("description", ""),
        )
        for name, known in schema["properties"].items()
    }


def _range(known: Mapping[str, Any]) -> str | None:
    """Return the range of a field in words, from its JSON schema and without bounds beyond reason; None where it has none."""
    if "enum" in known:
        return " or ".join(map(str, known["enum"]))
    bounds = {key: known[key] for key in BOUNDS if key in known and known[key] not in (LARGEST, MANY)}
    if bounds == {"minimum": 0, "maximum": 1}:
        return "0 to 1"
    return " and ".join(f"{BOUNDS[key]} {value:g}" for key, value in bounds.items()) or None
