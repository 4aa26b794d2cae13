"""Tool calls in the text of an answer, compared as JSON: names and arguments count, spaces and order do not."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from perdure.core.canonical import canonical_json
from perdure.core.plain_json import DEPTH, BadJson, read_json

# `get_weather{"city": "Rome"}`: the name comes before the arguments: at the start, on its own line, or after a tag or a call
_NAMED = re.compile(r"(?:^|[\n>\]}])\s*(?:functions?\.)?([A-Za-z_][\w.-]*)(?::\d+)?\s*$")
_NEAR = 200  # characters before the arguments in which a name is looked for
_STARTS = 100  # places of a text at which JSON is looked for, so that a text of braces alone takes no time


def same_calls(prediction: str, reference: str) -> bool | None:
    """Return whether a prediction makes the calls of a reference, each as often; None where neither text has a call.

    Arguments are compared as JSON values: 1 equals 1.0, the order of names does not count, and arguments in quotes are parsed.
    """
    mine, theirs = Counter(calls_in(prediction)), Counter(calls_in(reference))
    return None if not mine and not theirs else mine == theirs


def calls_in(text: str) -> list[str]:
    """Return the calls in a text, each as canonical JSON of [name, arguments].

    A call is an object with "name" and "arguments" (or "parameters"): alone, in a list, or under "function" of another object.
    A name followed by an object of arguments is a call too (`get_weather{"city": "Rome"}`), as some chat templates write it.
    """
    calls: list[str] = []
    for value, before in _values(text):
        inner = list(_calls(value))
        near = before if len(before) <= _NEAR else "~" + before[-_NEAR:]
        name = _NAMED.search(near) if not inner and isinstance(value, dict) else None
        calls += inner or ([_canonical(name[1], value)] if name else [])
    return calls


def _values(text: str) -> Iterator[tuple[Any, str]]:
    """Return the outermost objects and lists of JSON in a text, each with the text before it."""
    start = end = 0
    for _ in range(_STARTS):
        opening = re.compile(r"[{\[]").search(text, start)
        if opening is None:
            return
        stop = _end(text, opening.start())
        try:
            value = read_json(text[opening.start() : stop]) if stop else None
        except BadJson:
            value = None
        if value is None:
            start = opening.end()
            continue
        yield value, text[end : opening.start()] if end == 0 else "}" + text[end : opening.start()]
        start = end = stop


def _end(text: str, start: int) -> int:
    """Return the position after the bracket that closes the one at `start`; 0 where none closes it or the nesting is too deep."""
    depth = 0
    for token in re.compile(r'"(?:[^"\\]|\\.)*"|[{\[]|[}\]]', re.DOTALL).finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
        if depth > DEPTH:  # read_json refuses JSON as deep as this
            return 0
    return 0


def _calls(value: Any) -> Iterator[str]:
    """Return the calls in a JSON value: the value itself, or the items of a list."""
    if isinstance(value, list):
        for item in value:
            yield from _calls(item)
    elif isinstance(value, dict):
        function = inner if isinstance(inner := value.get("function"), dict) else value
        arguments = next((function[key] for key in ("arguments", "parameters") if key in function), None)
        if isinstance(function.get("name"), str) and arguments is not None:
            yield _canonical(function["name"], arguments)
        elif isinstance(value.get("tool_calls"), list):
            yield from _calls(value["tool_calls"])


def _canonical(name: str, arguments: Any) -> str:
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments) if arguments.strip() else {}
        except BadJson:  # a text that is no JSON is compared as it is
            return canonical_json([name, arguments])
    return canonical_json([name, _number(arguments)])


def _number(value: Any) -> Any:
    """Return a JSON value with whole floats as int, and infinities and NaN, which JSON does not have, as text."""
    if isinstance(value, dict):
        return {key: _number(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_number(inner) for inner in value]
    if isinstance(value, float):
        return (
            int(value) if value.is_integer() else value if value == value and abs(value) != float("inf") else str(value)
        )
    return value
