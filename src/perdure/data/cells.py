"""Cells of a record as texts, and the joint between a prompt and an answer."""

import re
from datetime import date, datetime
from math import isfinite
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted
from perdure.data.columns import nested
from perdure.data.read import Record

DATE = re.compile(r"\d{4}(-\d{2}(-\d{2}([T ]\d{2}:\d{2}.*)?)?)?")


def text_in(record: Record, column: str, *, required: bool = False) -> str:
    """Return the text of a column; empty where the record has none.

    Raises:
        BadInput: The value is no text, or there is none where it is required.
    """
    value = record.fields.get(column)
    text = text_of("" if value is None else value, column, record)
    if required and not text.strip():
        raise BadInput(
            f"{record.source}: {column} is empty, so there is nothing to train; fill it in or remove the row"
        )
    return text


def text_of(value: Any, what: str, record: Record) -> str:
    """Return a value as text: a text as it is, a whole number as its digits.

    Args:
        value: The value.
        what: Name of its place, for errors.
        record: The record that it is in, for errors.

    Raises:
        BadInput: The value is neither.
    """
    refuse_missing(value, what, record)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a whole number has only one spelling; 0.1 and true have several
    if not isinstance(value, str):
        raise BadInput(f"{record.source}: {what} must be text, got {_not_text(value)}")
    return value


def date_in(record: Record, column: str) -> str | None:
    """Return the date of a column in ISO 8601: a year, a month, a day or a time; None where the record has none.

    Raises:
        BadInput: The value is no such date.
    """
    value = record.fields.get(column)
    if value is None or value == "":
        return None
    if isinstance(value, date | datetime):
        return value.isoformat()
    text = text_of(value, column, record).strip()
    if not DATE.fullmatch(text):
        raise BadInput(f"{record.source}: {column} is {quoted(text)}; write a date as 2021, 2021-03 or 2021-03-14")
    return text


def refuse_missing(value: Any, column: str, record: Record) -> None:
    """Refuse NaN and infinity: tables write NaN for a missing value, and a failed calculation gives either."""
    missing = not isfinite(value) if isinstance(value, float) else value != value
    if missing:
        raise BadInput(f"{record.source}: {column} is {value}, which is no value; write a text, or remove the row")


def joined(prompt: str, answer: str) -> str:
    """Return an answer as it follows a prompt: after a space where neither has one, as a tokenizer expects."""
    unspaced = prompt and not prompt[-1].isspace() and not answer[0].isspace()
    return f" {answer}" if unspaced else answer


def _not_text(value: Any) -> str:
    """Return a description of a value that is no text, and what to do about it."""
    if isinstance(value, bool):
        return f"{str(value).lower()}; write the answer of the model in quotes: 'yes', 'no' or 'true'"
    if isinstance(value, int | float):
        return f"the number {value}; put it in quotes, as the model is to write it"
    if isinstance(value, dict | list):
        return f"{nested(value)}; write the text in a column of its own"
    return f"a {type(value).__name__}; put it in quotes"
