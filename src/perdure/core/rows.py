"""A row: one example as text and not as tokens, so that it survives a change of tokenizer or template."""

import json
from dataclasses import asdict, dataclass, fields
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
class Check:
    """A property that an answer must have, which a function can decide: a verifiable instruction.

    Args:
        kind: Name of the property, as in IFEval: "punctuation:no_comma".
        arguments: Its arguments by name, as a canonical JSON object; empty without any.
    """

    kind: str
    arguments: str = ""

    @property
    def given(self) -> dict[str, Any]:
        """The arguments by name."""
        return _object(self.arguments)


@dataclass(frozen=True)
class Row:
    """One example. Either `messages` is set (a conversation), or `completion` follows `prompt` as plain text.

    A row with `choices` is a question with several answers of which `gold` is right, and `completion` is the right one. A row
    with `contexts` has one choice, the ending, which is its `completion`; `gold` is the context that it belongs to, its `prompt`.

    Args:
        prompt: Text before the trained part; empty for pure text.
        completion: The trained part; for a conversation it is empty, and every assistant turn that may be trained is.
        messages: The turns of a conversation, the last one by the assistant.
        label: Class name, where the task has classes.
        task: Name of the task it belongs to.
        source: Its place, as "file.jsonl:7"; not part of its identity.
        extra: Other arguments of the chat template (tools), as canonical JSON; empty without any.
        choices: Texts of the possible answers, as they follow the prompt; empty without any.
        contexts: Texts of which one precedes the only choice (as in WinoGrande); empty without any.
        gold: Index of the right choice, or of the right context where there are contexts.
        checks: Properties that an answer must have.
        date: Date of the text, in ISO 8601 ("2021", "2021-03", "2021-03-14"); not part of its identity.
        group: Name of the rows that belong together (a passage, a subject, a template); not part of its identity.
    """

    prompt: str = ""
    completion: str = ""
    messages: tuple[Message, ...] = ()
    label: str | None = None
    task: str = ""
    source: str = ""
    extra: str = ""
    choices: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    gold: int | None = None
    checks: tuple[Check, ...] = ()
    date: str | None = None
    group: str = ""

    @cached_property
    def hash(self) -> str:
        """Identity of the text: equal for two rows with the same prompt, answers, checks and messages, whatever their source."""
        told = {
            **self._options,
            **({} if self.gold is None else {"gold": self.gold}),
            **({"checks": [[check.kind, check.arguments] for check in self.checks]} if self.checks else {}),
        }
        parts = [self.prompt, self.completion, [m.identity for m in self.messages], *self._more]
        return content_hash([*parts, told] if told else parts)

    @cached_property
    def question(self) -> str:
        """Identity of the question: the prompt and what there is to choose from, or the turns before the last.

        The same question in train and test is a leak. Which answer is right, the order of the answers and the checks of an
        answer do not count.
        """
        options = {name: sorted(texts) for name, texts in self._options.items()}
        if not options:
            return content_hash(self._asked)
        return content_hash([*(["", *self._asked[1:]] if self.contexts else self._asked), options])

    @property
    def questions(self) -> tuple[str, ...]:
        """Every `question` that another row may have and ask the same: with these choices, and by the prompt alone."""
        return tuple(dict.fromkeys((self.question, content_hash(self._asked))))

    @property
    def _asked(self) -> list[Any]:
        return [self.prompt or self.completion, [m.identity for m in self.messages[:-1]], *self._more]

    @property
    def _options(self) -> dict[str, list[str]]:
        options = {"choices": list(self.choices), "contexts": list(self.contexts)}
        return {name: texts for name, texts in options.items() if texts}

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
        for one in fields(self):
            if one.name in _LATER and data[one.name] == one.default:
                del data[one.name]
        for message in data["messages"]:
            if not message["extra"]:
                del message["extra"]
            if message["train"]:
                del message["train"]
        for check in data.get("checks", ()):
            if not check["arguments"]:
                del check["arguments"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Row":
        """Restore a row written by `to_json`."""
        lists = {
            "messages": tuple(Message(**m) for m in data.get("messages", ())),
            "choices": tuple(data.get("choices", ())),
            "contexts": tuple(data.get("contexts", ())),
            "checks": tuple(Check(**check) for check in data.get("checks", ())),
        }
        return cls(**{**data, **lists})


_LATER = frozenset({"extra", "choices", "contexts", "gold", "checks", "date", "group"})
"""Fields that the JSON has only where they are not empty, since the first version of perdure did not write them."""


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

    @property
    def questions(self) -> tuple[str, ...]:
        """The row's `question`; what else its text would show is not stored."""
        return (self.question,)


def _object(text: str) -> dict[str, Any]:
    return json.loads(text) if text else {}
