"""The key of a row in a ledger, and its place in a task version."""

from dataclasses import dataclass

from perdure.core.canonical import content_hash
from perdure.core.rows import Row, RowName

HELD_OUT = ("test", "validation")  # every other part of a task is trained on
PLACES = ("memory", "test", "train", "validation")  # places of a row; a row is counted at the first one that has it


def row_key(row: Row) -> str:
    """Return the key of a row: a hash of its own hash, its label and its task."""
    return content_hash([row.hash, row.label, row.task])


def row_name(row: Row, part: str, *, label: bool) -> RowName:
    """Return the record of a row whose text is not kept.

    Args:
        row: The row.
        part: Part of the task that it is in.
        label: Keep its label too. A label that comes in addition to an answer is text like any other, and is not kept.
    """
    return RowName(row_key(row), row.hash, row.question, row.label if label else None, row.source, part)


@dataclass(frozen=True)
class RowPlace:
    """A row of a task version.

    Args:
        version: The task version.
        part: Part of it that the row is in: "train", "validation" or "test".
        hash: The row's `hash`.
        question: The row's `question`.
    """

    version: str
    part: str
    hash: str
    question: str
