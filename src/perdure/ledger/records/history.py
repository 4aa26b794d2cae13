"""The entries of a ledger in the order in which they were recorded, and the moves of a ref."""

from dataclasses import dataclass

from perdure.core.records import Record


@dataclass(frozen=True)
class LogLine(Record):
    """An entry, as the log lists it.

    Args:
        entry: Its id.
        parent: Id of the entry that it was made on.
        kind: Its kind.
        task: The task that it learned.
        time: When it was recorded, in UTC, as ISO 8601.
        refs: Names that stand for it.
    """

    entry: str
    parent: str | None
    kind: str
    task: str | None
    time: str
    refs: tuple[str, ...]


@dataclass(frozen=True)
class Move(Record):
    """A move of a ref.

    Args:
        time: When it moved, in UTC, as ISO 8601.
        old: Id of the entry that it named before; None where it was made.
        new: Id of the entry that it names since.
        why: What moved it.
    """

    time: str
    old: str | None
    new: str
    why: str
