"""Who made an entry, and why; never part of the entry's id."""

from dataclasses import dataclass

from perdure.core.records import Record, omitted

SIGNATURE = "signature"  # key of the note


@dataclass(frozen=True)
class Signature(Record):
    """Who made an entry, and why.

    Args:
        author: Name of the author; None where it is not known.
        message: What the author wrote about the entry; None for nothing.
    """

    author: str | None = omitted(None)
    message: str | None = omitted(None)

    @property
    def notes(self) -> dict[str, object]:
        """The signature as the notes of an entry; empty where there is nothing to note."""
        return {SIGNATURE: self} if self.author or self.message else {}
