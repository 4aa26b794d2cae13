"""The entries of a ledger in the order in which they were recorded, and the moves of a ref."""

from dataclasses import dataclass

from perdure.core.records import Record


@dataclass(frozen=True)
class LogLine(Record):
    """An entry, as the log lists it.

    Args:
        entry: Its id.
        parent: Id of its parent.
        kind: Its kind.
        task: The task that it learned.
        time: When it was recorded, in UTC, as ISO 8601.
        refs: Refs that point to it.
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
        old: Id of the entry that it pointed to before; None where it was created.
        new: Id of the entry that it points to since then.
        why: The command that moved it.
    """

    time: str
    old: str | None
    new: str
    why: str
