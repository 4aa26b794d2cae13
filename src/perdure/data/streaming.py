"""An answer as text while its tokens come."""

from collections.abc import Callable
from dataclasses import dataclass, field

from perdure.data.answers import Reader
from perdure.data.thoughts import may_open

HALF = "\ufffd"  # what a decoder writes for a character whose last bytes have not come yet


@dataclass
class TextStream:
    """Writes an answer piece by piece as its tokens come; together the pieces are what `Reader.text` reads in all of them.

    A thought is not written, nor is what may become one, a character that is not whole, or white space before the next word.

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
        """Take the next token, and write what is certain of the answer now."""
        self._ids.append(token)
        text = self.reader.text(self._ids, self.tag)
        begins_before = tuple(self._ids) == self.reader.before[: len(self._ids)]
        open_end = text.endswith(HALF) or begins_before or (not self._written and may_open(text))
        if not open_end and text.startswith(self._written):
            self._put(text)

    def end(self) -> None:
        """Write the rest of the answer."""
        text = self.reader.text(self._ids, self.tag)
        if not text.startswith(
            self._written
        ):  # the tokenizer reads earlier tokens otherwise once the later ones are there
            self.write("\n")
            self._written = ""
        self._put(text)

    def _put(self, text: str) -> None:
        if len(text) > len(self._written):
            self.write(text[len(self._written) :])
            self._written = text
