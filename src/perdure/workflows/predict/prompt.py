"""Prompts: a text, the turns of a conversation, or values for the columns of a task's template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from perdure.core.errors import BadInput
from perdure.core.plain_json import BadJson, read_json
from perdure.core.rows import Message
from perdure.core.words import counted
from perdure.data.read import Record, read_file
from perdure.data.turns import template_arguments, turns_of
from perdure.data.unpack import decode, read_bytes

Turns = Sequence[Mapping[str, Any]]
TABLES = (".jsonl", ".json", ".csv", ".parquet")  # files that are read as rows; any other has a prompt a line
TEXTS = ("prompt", "text")  # columns that hold the prompt
CONVERSATIONS = {"messages": ("role", "content"), "conversations": ("from", "value"), "prompt": ("role", "content")}
"""Columns that hold turns, with the names of their fields."""


@dataclass(frozen=True)
class Prompt:
    """One request. Either `turns` is set (a conversation), or `text`, or a task makes a text of the columns of `record`.

    Args:
        text: The text; blank for a blank line of a file.
        turns: A conversation that ends where the model is to answer.
        extra: Arguments of the chat template besides the turns (`Row.extra`).
        record: Values by column; None where the prompt is no row of a data file.
        source: Its place, as "prompts.jsonl:3", for errors.
    """

    text: str = ""
    turns: tuple[Message, ...] = ()
    extra: str = ""
    record: Record | None = None
    source: str = "the prompt"

    @property
    def blank(self) -> bool:
        """Whether the prompt is a blank line. The answer to it is empty."""
        return not (self.turns or self.record or self.text.strip())

    @property
    def as_json(self) -> JsonValue:
        """The prompt as JSON: the text, the turns, or the values by column."""
        if self.turns:
            return [turn.fields for turn in self.turns]
        return self.text if self.text or self.record is None else dict(self.record.fields)


def prompt_of(value: str | Turns | Mapping[str, Any], source: str) -> Prompt:
    """Return a request made in Python: a text, a list of turns, or values by column.

    Raises:
        BadInput: It is empty, or the turns are no conversation that the model could go on with.
    """
    if isinstance(value, str):
        if not value.strip():
            raise BadInput(f"{source} is empty; give a text")
        return Prompt(value, source=source)
    if isinstance(value, Mapping):
        return _from_record(Record(dict(value), source))[0]
    return Prompt(turns=checked_turns(turns_of(list(value), source), source), source=source)


def read_messages(text: str, source: str) -> Prompt:
    """Return the conversation that a JSON text holds: a list of turns, or an object with "messages" and other fields.

    Raises:
        BadInput: The text is no such JSON, a role is not known, or the last turn leaves nothing to answer.
    """
    try:
        value = read_json(text)
    except BadJson as error:
        line = f":{error.line}" if error.line else ""
        raise BadInput(f"{source}{line} is broken JSON: {error.problem}; write a list of {{role, content}}") from None
    record = Record(value if isinstance(value, dict) else {"messages": value}, source)
    if "messages" not in record.fields:
        raise BadInput(f'{source} has no "messages"; write a list of {{role, content}}, or an object that holds one')
    turns = checked_turns(turns_of(record.fields["messages"], source), source)
    return Prompt(turns=turns, extra=template_arguments(record), source=source)


def read_messages_file(path: Path) -> Prompt:
    """Return the conversation that a file holds; see `read_messages`."""
    return read_messages(decode(read_bytes(path), path), path.name)


def read_prompts(path: Path) -> tuple[list[Prompt], list[str]]:
    """Return the requests of a file in order, and notices about it.

    A data file (.jsonl, .json, .csv, .parquet) has a request a row, in the column "prompt", "text" or "messages" or in those of
    a task's template. Any other file has one a line.

    Raises:
        BadInput: The file is missing or broken, or a row has no text.
    """
    if Path(path.name.lower().removesuffix(".gz")).suffix not in TABLES:
        return prompt_lines(decode(read_bytes(path), path), path.name), []
    records, notices = read_file(path)
    prompts, answered = [], 0
    for record in records:
        prompt, had_answer = _from_record(record)
        prompts.append(prompt)
        answered += had_answer
    if answered:
        notices = [*notices, f"{path.name}: {counted(answered, 'answer')} at the end of a conversation left out"]
    return prompts, notices


def prompt_lines(text: str, source: str) -> list[Prompt]:
    """Return one request a line; a blank line is a blank one."""
    lines = text.removesuffix("\n").split("\n")
    return [Prompt(line.removesuffix("\r"), source=f"{source}:{n}") for n, line in enumerate(lines, start=1)]


def checked_turns(turns: Sequence[Message], source: str) -> tuple[Message, ...]:
    """Return turns that the model can go on with.

    Raises:
        BadInput: There is none, one is empty, or the last one is none to answer.
    """
    if not turns:
        raise BadInput(f"{source} has no turns; give one at least")
    for n, turn in enumerate(turns, start=1):
        if not turn.content.strip() and not turn.extra:
            raise BadInput(f"{source}, turn {n} ({turn.role}) is empty; fill it in or remove it")
    if turns[-1].role not in ("user", "tool", "function"):
        raise BadInput(
            f"{source}, turn {len(turns)} is by {turns[-1].role}, so there is nothing to answer; end with a user turn"
        )
    return tuple(turns)


def _from_record(record: Record) -> tuple[Prompt, bool]:
    """Return the request of a row of a data file, and whether an answer behind its turns was left out."""
    fields, source = record.fields, record.source
    column = next((name for name in CONVERSATIONS if isinstance(fields.get(name), list)), None)
    if column is not None:
        turns = turns_of(fields[column], source, *CONVERSATIONS[column])
        answered = len(turns) > 1 and turns[-1].role == "assistant"
        prompt_turns = checked_turns(turns[:-1] if answered else turns, source)
        return Prompt(turns=prompt_turns, extra=template_arguments(record), source=source), answered
    text = next((fields[name] for name in TEXTS if isinstance(fields.get(name), str)), "")
    if not text.strip() and any(name in fields for name in TEXTS):
        raise BadInput(f"{source} has no prompt: its text is empty; fill it in or remove the row")
    return Prompt(text, record=record, source=source), False
