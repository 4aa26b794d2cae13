"""Values of the arguments of checks: each function returns the value that a check uses, or raises `ValueError`."""

import re
from collections.abc import Callable

import regex
from regex import Pattern

from perdure.evaluate.checks.language import LANGUAGES

AT_LEAST, LESS_THAN = "at least", "less than"


def count(value: object) -> int:
    """Return a whole number of at least 0; tables write it as 3.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("must be a whole number of at least 0")
    return value


def relation(value: object) -> Callable[[int, int], bool]:
    """Return the comparison of a count with its limit that "at least" or "less than" names."""
    if value == AT_LEAST:
        return int.__ge__
    if value == LESS_THAN:
        return int.__lt__
    raise ValueError(f"must be {AT_LEAST!r} or {LESS_THAN!r}")


def text(value: object) -> str:
    """Return a text that is not empty, without white space around it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value.strip()


def texts(value: object) -> tuple[str, ...]:
    """Return a list of texts, none of them empty."""
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of texts")
    return tuple(text(item) for item in value)


def letter(value: object) -> str:
    """Return one character in lower case."""
    if not isinstance(value, str) or len(value) != 1 or value.isspace():
        raise ValueError("must be one character")
    return value.lower()


def language(value: object) -> str:
    """Return the code of a language that can be recognised."""
    if not isinstance(value, str) or value.lower() not in LANGUAGES:
        raise ValueError(f"must be one of {', '.join(LANGUAGES)}")
    return value.lower()


def pattern(value: object) -> Pattern:
    """Return a compiled regular expression of Python's syntax."""
    if not isinstance(value, str):
        raise ValueError("must be a regular expression in quotes")
    try:
        re.compile(value)  # accept only what Python's re accepts, not the extensions of regex
        return regex.compile(value, regex.VERSION0)
    except (re.error, regex.error) as error:
        raise ValueError(f"is not a regular expression ({error})") from None
