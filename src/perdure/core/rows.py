"""A row: one example as text, before any tokenizer has seen it, so that it survives a change of tokenizer or template."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from perdure.core.canonical import content_hash


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Row:
    """One example. Either `messages` is set (a conversation), or `completion` follows `prompt` as plain text.

    Args:
        prompt: Text before the trained part; empty for pure text.
        completion: The trained part; for a conversation it is empty and every assistant turn is trained.
        messages: The turns of a conversation, the last one by the assistant.
        label: Class name, where the task has classes.
        task: Name of the task it belongs to.
        source: Where it came from, as "file.jsonl:7"; not part of its identity.
    """

    prompt: str = ""
    completion: str = ""
    messages: tuple[Message, ...] = ()
    label: str | None = None
    task: str = ""
    source: str = ""

    @cached_property
    def hash(self) -> str:
        """Identity of the text: equal for two rows with the same prompt, completion and messages, whatever their source."""
        return content_hash([self.prompt, self.completion, [[m.role, m.content] for m in self.messages]])

    @cached_property
    def question(self) -> str:
        """Identity of what is asked (the prompt, or the turns before the last): the same question in train and test is a leak."""
        return content_hash([self.prompt or self.completion, [[m.role, m.content] for m in self.messages[:-1]]])

    @property
    def answer(self) -> str:
        """The reference answer: the completion, or the last turn of the conversation."""
        return self.messages[-1].content if self.messages else self.completion

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON; `from_json` restores an equal row."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Row":
        """Restore a row written by `to_json`."""
        return cls(**{**data, "messages": tuple(Message(**m) for m in data.get("messages", ()))})


@dataclass(frozen=True)
class RowName:
    """What stays of a row whose text is not kept: enough to recognise the row, and nothing of what it says.

    Args:
        key: Key of the row in the ledger.
        hash: The row's `hash`.
        question: The row's `question`.
        label: Class name, where the labels of the task are its answers; else None.
        source: Where the row came from, as "file.jsonl:7".
        part: Part of the task that the row is in: "train" or "validation".
    """

    key: str
    hash: str
    question: str
    label: str | None = None
    source: str = ""
    part: str = "train"
