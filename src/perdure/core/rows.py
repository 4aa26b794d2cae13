"""A row: one example as text and not as tokens, so that it survives a change of tokenizer or template."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from perdure.core.canonical import content_hash


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: The speaker, by its name in the chat template.
        content: Text of the turn.
        extra: Further fields of the turn for the template (reasoning, tool calls), as canonical JSON; empty without any.
        train: Whether the turn may be trained.
    """

    role: str
    content: str
    extra: str = ""
    train: bool = True

    @property
    def fields(self) -> dict[str, Any]:
        """The turn as a chat template reads it."""
        return {"role": self.role, "content": self.content, **_object(self.extra)}

    @property
    def identity(self) -> list[str]:
        """The values that decide whether two turns are equal."""
        more = [self.extra] if self.extra or not self.train else []
        return [self.role, self.content, *more, *([] if self.train else ["not trained"])]


@dataclass(frozen=True)
class Row:
    """One example. Either `messages` is set (a conversation), or `completion` follows `prompt` as plain text.

    Args:
        prompt: Text before the trained part; empty for pure text.
        completion: The trained part; for a conversation it is empty, and every assistant turn that may be trained is.
        messages: The turns of a conversation, the last one by the assistant.
        label: Class name, where the task has classes.
        task: Name of the task it belongs to.
        source: Its place, as "file.jsonl:7"; not part of its identity.
        extra: Other arguments of the chat template (tools), as canonical JSON; empty without any.
    """

    prompt: str = ""
    completion: str = ""
    messages: tuple[Message, ...] = ()
    label: str | None = None
    task: str = ""
    source: str = ""
    extra: str = ""

    @cached_property
    def hash(self) -> str:
        """Identity of the text: equal for two rows with the same prompt, completion and messages, whatever their source."""
        return content_hash([self.prompt, self.completion, [m.identity for m in self.messages], *self._more])

    @cached_property
    def question(self) -> str:
        """Identity of the question (the prompt, or the turns before the last): the same question in train and test is a leak."""
        return content_hash([self.prompt or self.completion, [m.identity for m in self.messages[:-1]], *self._more])

    @property
    def answer(self) -> str:
        """The reference answer: the completion, or the last turn of the conversation."""
        return self.messages[-1].content if self.messages else self.completion

    @property
    def given(self) -> dict[str, Any]:
        """Arguments of the chat template other than the turns, by their names in the template."""
        return _object(self.extra)

    @property
    def _more(self) -> list[str]:
        return [self.extra] if self.extra else []

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON; `from_json` restores an equal row."""
        data = asdict(self)
        for part in (data, *data["messages"]):
            if not part["extra"]:
                del part["extra"]
            if part.get("train", False):
                del part["train"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Row":
        """Restore a row written by `to_json`."""
        return cls(**{**data, "messages": tuple(Message(**m) for m in data.get("messages", ()))})


@dataclass(frozen=True)
class RowName:
    """The record of a row whose text is not stored: enough to recognise the row, and nothing of its text.

    Args:
        key: Key of the row in the ledger.
        hash: The row's `hash`.
        question: The row's `question`.
        label: Class name, where the labels of the task are its answers; else None.
        source: The row's place, as "file.jsonl:7".
        part: Part of the task that the row is in: "train" or "validation".
    """

    key: str
    hash: str
    question: str
    label: str | None = None
    source: str = ""
    part: str = "train"


def _object(text: str) -> dict[str, Any]:
    return json.loads(text) if text else {}
