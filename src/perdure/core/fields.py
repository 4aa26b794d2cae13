"""Types of method fields with the ranges that pydantic checks, and descriptions of fields for users."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import Field, JsonValue, TypeAdapter

from perdure.core.records import Record

LARGEST = 10**9  # largest factor: beyond it float32 has no digits left for the loss
MANY = 10**7  # largest number of rows or log-probabilities; no memory has more

Strength = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]  # factor of a penalty; 0 switches it off
Share = Annotated[float, Field(ge=0, le=1)]  # share, from 0 to 1
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]  # share below 1
ShareAboveZero = Annotated[float, Field(gt=0, le=1)]
AboveZero = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]  # divisor, or a largest value
Temperature = Annotated[float, Field(gt=1e-4, le=LARGEST, allow_inf_nan=False)]  # divides log-probabilities
Count = Annotated[int, Field(ge=0, le=MANY)]  # a number of rows
Positive = Annotated[int, Field(ge=1, le=MANY)]  # a number of at least 1

BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


@dataclass(frozen=True)
class FieldAbout(Record):
    """The description of a field for users.

    Args:
        type: Its type, as Python writes it.
        range: The range of its values; None where every value of the type is allowed.
        default: Its default.
        about: Its meaning.
    """

    type: str
    range: str | None
    default: JsonValue
    about: str


def described(kind: type) -> dict[str, FieldAbout]:
    """Return the description of each field of a pydantic model or dataclass, by name."""
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
    """Return the range of a field as text, from its JSON schema and without extreme limits; None where it has none."""
    if "enum" in known:
        return " or ".join(map(str, known["enum"]))
    bounds = {key: known[key] for key in BOUNDS if key in known and known[key] not in (LARGEST, MANY)}
    if bounds == {"minimum": 0, "maximum": 1}:
        return "0 to 1"
    return " and ".join(f"{BOUNDS[key]} {value:g}" for key, value in bounds.items()) or None
