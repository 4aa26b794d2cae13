"""Answers as text, without thoughts and markers: the answer of a model, and the reference answer of a row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perdure.core.rows import Message, Row
from perdure.data.chat import chat, chat_text, frame
from perdure.data.encode import answer_ids, end_markers, stop_ids, without_end, without_markers
from perdure.data.thoughts import CLOSING, opening, split

NEAR = 200  # characters at the end of a prompt that may share a token with what follows


@dataclass(frozen=True)
class Reader:
    """Reads answers of one model from tokens.

    Args:
        tokenizer: The model's tokenizer.
        stops: Tokens that end an answer.
        before: Tokens that the chat template writes before each answer, unless they are a thought.
        answer_tokens: Special tokens that belong to the answers, such as labels that are special tokens.
        closes: Tags that close a thought in answers of plain text.
    """

    tokenizer: Any
    stops: frozenset[int]
    before: tuple[int, ...]
    answer_tokens: frozenset[int]
    closes: frozenset[str]

    @classmethod
    def of(cls, tokenizer: Any, rows: Sequence[Row] = ()) -> "Reader":
        """Return the reader of answers to `rows`."""
        around = frame(tokenizer)
        stops = frozenset(stop_ids(tokenizer))
        mark = "" if any(tag in around.before for tag in CLOSING.values()) else around.before  # thoughts are split off
        before = tokenizer(mark, add_special_tokens=False)["input_ids"] if mark else []
        texts = {without_markers(row, tokenizer).answer for row in rows}
        special = _special(tokenizer)
        ids = {i for text in texts for i in tokenizer(text, add_special_tokens=False)["input_ids"]}
        tags = {special[tag] for pair in CLOSING.items() for tag in pair if tag in special}
        answer_tokens = frozenset((ids & set(special.values()) | tags) - stops)
        closes = frozenset(tag for tag in CLOSING.values() if any(tag in text for text in texts))
        return cls(tokenizer, stops, tuple(before), answer_tokens, closes)

    def text(self, ids: Sequence[int], tag: str | None = None) -> str:
        """Return the answer of tokens, without the thought before it; empty where the thought does not end.

        Args:
            ids: The generated or trained tokens.
            tag: The tag of the thought block that the prompt has opened.
        """
        return split(self.whole(ids), tag)[1].strip()

    def whole(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, with thoughts and without markers."""
        tokens = list(ids)
        while tokens and tokens[-1] in self.stops:
            tokens.pop()
        if self.before and tuple(tokens[: len(self.before)]) == self.before:
            tokens = tokens[len(self.before) :]
        if not self.answer_tokens:
            return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        left_out = set(_special(self.tokenizer).values()) - self.answer_tokens
        seen = [i for i in tokens if i not in left_out]
        return self.tokenizer.decode(seen, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def reference(self, row: Row) -> str:
        """Return the reference answer of a row, read in the same way as an answer of the model.

        Raises:
            BadInput: The chat template refuses the row.
        """
        if row.messages:
            ids = answer_ids(row, self.tokenizer)
            return self.text(ids, self.tag(row)) or self.whole(ids).strip()
        plain = without_markers(row, self.tokenizer).completion
        thought, answer = split(plain, self.tag(row))
        return plain if thought is None or not answer.strip() else answer.strip()

    def tag(self, row: Row) -> str | None:
        """Return the tag of the thought block that the prompt of a row opens and its answer closes; None where there is none.

        In a conversation without an answer yet, the model's answer will close the block.
        """
        if row.messages and row.messages[-1] == Message("assistant", ""):
            turns = row.messages[:-1]
            block = opening(chat_text(turns, self.tokenizer, prompt=True, given=row.given, source=row.source))
            return block[1] if block else None
        if row.messages:
            return chat(without_markers(row, self.tokenizer), self.tokenizer).tag
        block = opening(row.prompt)
        return block[1] if block and CLOSING[block[1]] in self.closes else None

    def lengths(self, row: Row) -> tuple[int, int]:
        """Return the number of tokens of the thought and of the answer of a row."""
        answer = self._count(self.reference(row))
        if not row.messages:
            return max(0, self._count(without_markers(row, self.tokenizer).completion) - answer), answer
        tokens = [i for i in answer_ids(row, self.tokenizer) if i not in self.stops]
        return max(0, len(tokens) - answer), answer

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class Choices:
    """The answers of a task; every one of them is a choice for every question.

    Args:
        tokenizer: The model's tokenizer.
        texts: The answers, each once, sorted.
    """

    tokenizer: Any
    texts: tuple[str, ...]
    _known: dict[tuple[str, str], list[int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, answers: Iterable[str], tokenizer: Any) -> "Choices":
        """Return the choices of a task with these answers, without the markers at their ends."""
        markers = end_markers(tokenizer)
        return cls(tokenizer, tuple(sorted({without_end(text, markers) for text in answers})))

    def text(self, row: Row) -> str:
        """Return the choice that is right for a row."""
        return without_end(row.completion or row.answer, end_markers(self.tokenizer))

    def ids(self, row: Row) -> list[list[int]]:
        """Return the tokens of each choice, with its end, as training would put them after the prompt of `row`."""
        return [self._ids(row, text) for text in self.texts]

    def _ids(self, row: Row, text: str) -> list[int]:
        # The tokens of a choice depend only on the end of the prompt; in a conversation that is the generation prompt.
        end = "" if row.messages else row.prompt[-NEAR:]
        if (end, text) not in self._known:
            turns = (*row.messages[:-1], Message("assistant", text))
            answered = replace(row, messages=turns) if row.messages else replace(row, completion=text)
            self._known[end, text] = answer_ids(answered, self.tokenizer)
        return self._known[end, text]


def _special(tokenizer: Any) -> dict[str, int]:
    """Return the special tokens of a tokenizer by their text."""
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    added = {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | named
