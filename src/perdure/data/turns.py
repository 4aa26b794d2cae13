"""Conversations: the turns of a record as messages, with the other arguments of a chat template."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure.core.canonical import canonical_json
from perdure.core.errors import BadInput
from perdure.core.plain_json import BadJson, read_json
from perdure.core.plain_text import quoted
from perdure.core.rows import Message, Row
from perdure.data.read import Record

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool"} | {role: role for role in ROLES}
REASONING = ("reasoning_content", "reasoning", "thinking")  # fields with the thought of an assistant turn
TURN_FIELDS = (*REASONING, "tool_calls", "tool_call_id", "name", "tool_plan")
"""Fields of a turn that are passed to the chat template with role and content."""

ROW_FIELDS = ("tools", "documents", "chat_template_kwargs")
"""Columns of a conversation that are passed to the chat template with the turns."""

_NAMED = 8  # largest number of fields that notices name
_MARKS = ("weight", "train")  # fields that mark whether a turn is trained


def turns_of(value: Any, source: str, role: str = "role", content: str = "content") -> list[Message]:
    """Return the turns of a list of `{role: ..., content: ...}`; the keys differ between formats.

    Raises:
        BadInput: A turn is not valid, or its content cannot be trained; the message names row and turn.
    """
    roles = SHAREGPT_ROLES if role == "from" else {name: name for name in ROLES}
    if not isinstance(value, list):
        raise BadInput(f"{source}: turns must be a list of {{{role}, {content}}}, got a {type(value).__name__}")
    return [_turn(turn, roles, f"{source}, turn {n}", role, content) for n, turn in enumerate(value, start=1)]


def conversation(turns: Sequence[Message], record: Record) -> Row:
    """Return the row of a conversation, up to its last answer that is trained; turns after that have nothing to train.

    Raises:
        BadInput: There is no answer, an empty one, or nothing before it; or a column for the template is not valid.
    """
    source = record.source
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if answers and not any(turns[index].train for index in answers):
        raise BadInput(
            f"{source} marks every assistant turn with train: false, so there is nothing to train; remove the row"
        )
    if not answers:
        raise BadInput(f"{source} has no assistant turn, so there is nothing to train; add one or remove the row")
    if any(not turns[index].content.strip() and "tool_calls" not in turns[index].fields for index in answers):
        raise BadInput(
            f"{source} has an empty assistant turn, so there is nothing to train in it; fill it in or remove it"
        )
    last = max(index for index in answers if turns[index].train)
    if not any(turn.role == "user" for turn in turns[:last]):
        raise BadInput(f"{source} has no user turn before the answer; add one, or write the row as text")
    return Row(messages=tuple(turns[: last + 1]), extra=template_arguments(record))


def template_arguments(record: Record) -> str:
    """Return the other arguments of the chat template in a record, as canonical JSON; empty where there are none.

    Raises:
        BadInput: A column for the template has a value of a wrong type.
    """
    given = {name: value for name in ROW_FIELDS if (value := _given(record, name))}
    return _stored(given, record.source) if given else ""


def unread_fields(records: Iterable[Record]) -> list[str]:
    """Return notices about the fields of turns that nothing reads, most frequent first."""
    keys = {"role", "content", "from", "value", *TURN_FIELDS, *_MARKS}
    counts: Counter[str] = Counter()
    for record in records:
        for column in ("messages", "conversations", "prompt", "completion"):
            turns = record.fields.get(column)
            for turn in turns if isinstance(turns, list) else ():
                if isinstance(turn, dict):
                    counts.update(str(key) for key, value in turn.items() if key not in keys and _holds(value))
    notices = [
        f"the field {quoted(name, 40)} of {count} turn{'' if count == 1 else 's'} is not read"
        for name, count in counts.most_common(_NAMED)
    ]
    return notices + ([f"{len(counts) - _NAMED} more fields of turns are not read"] if len(counts) > _NAMED else [])


def _turn(turn: Any, roles: Mapping[str, str], where: str, role: str, content: str) -> Message:
    if not isinstance(turn, dict):
        raise BadInput(f"{where} must be an object with {role} and {content}, got a {type(turn).__name__}")
    named = turn.get(role)
    if not isinstance(named, str) or named not in roles:
        raise BadInput(f"{where}: {role} is {quoted(named)}; it must be one of {', '.join(roles)}")
    marks = {key: turn[key] for key in _MARKS if turn.get(key) is not None}
    for key, mark in marks.items():
        if mark not in (0, 1):
            raise BadInput(f"{where}: {key} is {quoted(mark)}; write true or false, as 'train': false")
    if turn.get("function_call"):
        raise BadInput(f"{where}: function_call is not supported; write it as tool_calls, a list of {{type, function}}")
    extra = {name: turn[name] for name in TURN_FIELDS if _holds(turn.get(name))}
    if "tool_calls" in extra:
        extra["tool_calls"] = _calls(extra["tool_calls"], where)
    for name in REASONING:
        if name in extra and not isinstance(extra[name], str):
            raise BadInput(f"{where}: {name} must be text, got a {type(extra[name]).__name__}")
    text = turn.get(content)
    if text is None and "tool_calls" in extra:
        extra[content] = None  # templates distinguish a missing text from an empty one
        text = ""
    return Message(roles[named], _text_of(text, where), _stored(extra, where) if extra else "", all(marks.values()))


def _text_of(value: Any, where: str) -> str:
    """Return the text of a turn: a string, or a list of OpenAI text parts."""
    if isinstance(value, list):
        for number, part in enumerate(value, start=1):
            kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
            if kind != "text" or not isinstance(part.get("text"), str):
                raise BadInput(
                    f"{where}, part {number} of its content is {quoted(kind)}; only text is trained: remove the row, "
                    "or write the part as text"
                )
        return "".join(part["text"] for part in value)
    if value is None:
        raise BadInput(f"{where}: the content must be text, got null; fill it in or remove the row")
    if not isinstance(value, str):
        raise BadInput(f"{where}: the content must be text, got a {type(value).__name__}")
    return value


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Return tool calls with their arguments as an object, since templates convert it to JSON themselves."""
    if not isinstance(value, list) or not all(isinstance(call, dict) for call in value):
        raise BadInput(f"{where}: tool_calls must be a list of objects {{type, function: {{name, arguments}}}}")
    calls = []
    for call in value:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadInput(f"{where}: a tool call names no function; write {{type, function: {{name, arguments}}}}")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            function = {**function, "arguments": _loaded(arguments, where) if arguments.strip() else {}}
        calls.append({**call, "function": function} if "function" in call else function)
    return calls


def _given(record: Record, name: str) -> Any:
    value = record.fields.get(name)
    if not _holds(value):
        return None
    if isinstance(value, str):  # tables have no lists of objects
        value = _loaded(value, f"{record.source}: {name}")
    kind = dict if name == "chat_template_kwargs" else list
    if not isinstance(value, kind) or (kind is list and not all(isinstance(item, dict) for item in value)):
        what = "an object" if kind is dict else "a list of objects"
        raise BadInput(f"{record.source}: {name} must be {what}, got a {type(value).__name__}")
    return value


def _loaded(text: str, where: str) -> Any:
    try:
        return read_json(text)
    except BadJson as error:
        raise BadInput(f"{where}: {quoted(text)} is no JSON ({error.problem})") from error


def _stored(value: Any, where: str) -> str:
    """Return an argument of the chat template as JSON."""
    try:
        return canonical_json(value)
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"{where}: {quoted(value)} has a value that JSON cannot express (NaN, infinity, a date, bytes); write it as text"
        ) from error


def _holds(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}
