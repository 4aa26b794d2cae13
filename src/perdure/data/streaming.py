"""Streaming of an answer: its text while its tokens are generated."""

from collections.abc import Callable
from dataclasses import dataclass, field

from perdure.data.answers import Reader
from perdure.data.thoughts import may_open

HALF = "\ufffd"  # a decoder writes this for a character whose last bytes are still missing


@dataclass
class TextStream:
    """Writes an answer in pieces while its tokens are generated. Together the pieces are `Reader.text` of all tokens.

    These are not written: a thought, text that may become a thought, an incomplete character, and trailing white space.

    Args:
        reader: Reads the answer.
        tag: The tag of the thought block that the prompt has opened; None where it has opened none.
        write: Called with each piece.
    """

    reader: Reader
    tag: str | None
    write: Callable[[str], None]
    _ids: list[int] = field(default_factory=list)
    _written: str = ""

    def add(self, token: int) -> None:
        """Add the next token, and write the part of the answer that is certain now."""
        self._ids.append(token)
        text = self.reader.text(self._ids, self.tag)
        begins_before = tuple(self._ids) == self.reader.before[: len(self._ids)]
        open_end = text.endswith(HALF) or begins_before or (not self._written and may_open(text))
        if not open_end and text.startswith(self._written):
            self._put(text)

    def end(self) -> None:
        """Write the rest of the answer."""
        text = self.reader.text(self._ids, self.tag)
        if not text.startswith(self._written):  # the tokenizer decodes earlier tokens differently after later ones
            self.write("\n")
            self._written = ""
        self._put(text)

    def _put(self, text: str) -> None:
        if len(text) > len(self._written):
            self.write(text[len(self._written) :])
            self._written = text
