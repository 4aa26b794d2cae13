"""Rows whose answers are checked: an instruction, and the properties that an answer to it must have."""

from typing import Any

from perdure.core.canonical import canonical_json
from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted
from perdure.core.rows import Check, Message, Row
from perdure.data.cells import joined, text_in
from perdure.data.read import Record


def from_checks(record: Record) -> Row:
    """Return the row of an instruction with checks, in the columns of IFEval: it is the user's turn, and has no answer.

    Arguments that are null count as absent, since tables give every check the arguments of all.

    Raises:
        BadInput: The kinds are no list of texts, or the arguments no list of as many objects; the message has the line.
    """
    kinds, given = record.fields["instruction_ids"], record.fields.get("kwargs")
    if not isinstance(kinds, list | tuple) or not kinds or any(not isinstance(kind, str) for kind in kinds):
        raise BadInput(
            f"{record.source}: instruction_ids is {quoted(kinds)}; write a list of the names of checks "
            '(["punctuation:no_comma"])'
        )
    arguments = [{}] * len(kinds) if given is None else given
    if not isinstance(arguments, list | tuple) or any(not isinstance(one, dict | None) for one in arguments):
        raise BadInput(f"{record.source}: kwargs is {quoted(given)}; write a list with one object for each check")
    if len(arguments) != len(kinds):
        raise BadInput(
            f"{record.source}: kwargs has {len(arguments)} objects for {len(kinds)} instruction_ids; write one for each"
        )
    prompt = text_in(record, "prompt")
    if not prompt.strip():
        raise BadInput(f"{record.source}: prompt is empty, so there is nothing to answer; fill it in or remove the row")
    checks = tuple(Check(kind, _json(one, record)) for kind, one in zip(kinds, arguments, strict=True))
    return Row(messages=(Message("user", prompt), Message("assistant", "")), checks=checks)


def from_aliases(record: Record) -> Row:
    """Return the row of a question whose answer has several names; an answer that begins with any of them is right.

    Raises:
        BadInput: The aliases are no list of texts, or there is no completion; the message has the line.
    """
    aliases = record.fields["aliases"]
    if not isinstance(aliases, list | tuple) or any(not isinstance(name, str) for name in aliases):
        raise BadInput(f"{record.source}: aliases is {quoted(aliases)}; write a list of texts")
    prompt, answer = text_in(record, "prompt"), text_in(record, "completion", required=True)
    names = list(dict.fromkeys(name.strip() for name in (answer, *aliases) if name.strip()))
    check = Check("text:begins", canonical_json({"options": names}))
    return Row(prompt=prompt, completion=joined(prompt, answer), checks=(check,))


def _json(arguments: dict[str, Any] | None, record: Record) -> str:
    there = {name: value for name, value in (arguments or {}).items() if value is not None}
    try:
        return canonical_json(there) if there else ""
    except (TypeError, ValueError) as error:
        raise BadInput(f"{record.source}: kwargs holds a value that is no JSON ({error}); correct it") from error
