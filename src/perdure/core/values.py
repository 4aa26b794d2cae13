"""Values that users give: numbers in files and options, and their form in error messages."""

import re
from typing import Any, get_args

from perdure.core.errors import BadSpec

EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # a number that YAML 1.1 reads as a text


def shown(value: Any) -> str:
    """Return a value for an error message: on one line, and cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:79] + "…"


def as_number(value: Any, kind: Any, where: str) -> Any:
    """Return a value, converted to a number where `kind` is a number and YAML 1.1 read the number as a text.

    Raises:
        BadSpec: It is a truth value or another text.
    """
    kinds = set(get_args(kind)) or {kind}
    if not kinds & {int, float} or kinds & {bool, str} or not isinstance(value, bool | str):
        return value
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        return float(value)
    raise BadSpec(f"{where} is a number, got {shown(value)}; write it in digits, without quotes")
