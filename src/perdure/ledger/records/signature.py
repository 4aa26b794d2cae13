"""Author and message of an entry; not part of the entry's id."""

from dataclasses import dataclass

from perdure.core.records import Record, omitted

SIGNATURE = "signature"  # key of the note


@dataclass(frozen=True)
class Signature(Record):
    """Author and message of an entry.

    Args:
        author: Name of the author; None where it is not known.
        message: The author's message about the entry; None without one.
    """

    author: str | None = omitted(None)
    message: str | None = omitted(None)

    @property
    def notes(self) -> dict[str, object]:
        """The signature as the notes of an entry; empty where there is nothing to note."""
        return {SIGNATURE: self} if self.author or self.message else {}
