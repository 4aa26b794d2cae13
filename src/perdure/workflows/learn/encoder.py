"""The rows of one learn as tokens."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from perdure.core.rows import Row
from perdure.data.chat import Chat
from perdure.data.encode import Encoded, encode


class RowEncoder:
    """Turns rows into tokens, each row once however often it is wanted: to be checked, trained, drawn, and ranked for memory.

    Args:
        tokenizer: The model's tokenizer.
        max_length: Most tokens of a row.
        train_on: What of a row is trained; see `data.encode.encode`.
        by_answer: Take the answer of a row for its label: what a model that answers with labels is to answer.
    """

    def __init__(self, tokenizer: Any, max_length: int, train_on: str = "completion", *, by_answer: bool = False):
        self.tokenizer, self.max_length, self.train_on, self.by_answer = tokenizer, max_length, train_on, by_answer
        self._rows: dict[str, Encoded] = {}

    def __call__(self, row: Row, conversation: Chat | None = None) -> Encoded:
        """Return a row as tokens; see `data.encode.encode`."""
        if row.hash not in self._rows:
            self._rows[row.hash] = encode(row, self.tokenizer, self.max_length, conversation, self.train_on)
        known, label = self._rows[row.hash], row.answer.strip() if self.by_answer else row.label
        return known if known.label == label else replace(known, label=label)  # the hash does not cover labels

    def all(self, rows: Iterable[Row]) -> tuple[Encoded, ...]:
        """Return rows as tokens, in order."""
        return tuple(self(row) for row in rows)
