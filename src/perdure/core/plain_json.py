"""Reading JSON of unknown origin. All faults are one kind of error, nesting and numbers are limited, and names must be unique."""

import json
from pathlib import Path
from typing import Any

DEPTH = 100  # levels of nesting; real data has fewer, and Python's own recursion ends at 1,000


class BadJson(ValueError):
    """A text that is no JSON, or is beyond the limits.

    Args:
        problem: The problem, as text.
        line: Its line, from 1; None if that is not known.
        column: Its column, from 1; None if that is not known.
    """

    def __init__(self, problem: str, line: int | None = None, column: int | None = None) -> None:
        """Store the problem and its place."""
        super().__init__(problem)
        self.problem, self.line, self.column = problem, line, column


def read_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        BadJson: It is broken, nested deeper than `DEPTH`, has a number with thousands of digits, or a name twice in one object.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise BadJson(error.msg, error.lineno, error.colno) from None
    except BadJson:
        raise
    except ValueError:  # Python's error for such a number
        raise BadJson("a number has more digits than are read (4,300)") from None
    except RecursionError:
        raise BadJson(f"it is nested deeper than {DEPTH} levels") from None
    if _deeper(value, DEPTH):
        raise BadJson(f"it is nested deeper than {DEPTH} levels")
    return value


def read_json_file(path: Path, most: int) -> Any:
    """Return the value in a JSON file of at most `most` bytes.

    Raises:
        BadJson: `read_json` refuses the text, the file is larger, or it is not in UTF-8.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise BadJson(f"it is larger than {most:,} bytes")
    try:
        return read_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadJson(f"it is not in UTF-8 (byte {error.start + 1:,})") from None


def is_number(value: object) -> bool:
    """Return whether a JSON value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadJson(f"{twice[:80]!r} is named twice in one object")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Return whether lists and objects in `value` are nested deeper than so many levels."""
    if not isinstance(value, dict | list):
        return False
    return levels == 0 or any(_deeper(v, levels - 1) for v in (value.values() if isinstance(value, dict) else value))
