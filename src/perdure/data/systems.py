"""The system prompt of a task, and a notice about rows with a system prompt of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from perdure.core.errors import BadSpec
from perdure.core.rows import Message, Row
from perdure.core.words import counted
from perdure.data.read import Record

SYSTEM_ROLES = ("system", "developer")


def with_system_column(record: Record, system: str | None, format: str) -> Record:
    """Return a record of a format that reads a column `system` itself, with the system prompt of the task where it has none.

    Raises:
        BadSpec: Rows of the format are whole texts without a question.
    """
    if system is None:
        return record
    if format == "text":
        raise BadSpec("`system` belongs to rows with a question, but the data are texts; remove it or set `format`")
    if format != "alpaca" or record.fields.get("system"):
        return record
    return replace(record, fields={**record.fields, "system": system})


def with_system(row: Row, system: str | None, format: str) -> Row:
    """Return a row with the system prompt of its task: as the first turn, or at the start of a plain prompt.

    A conversation that begins with its own system turn is returned unchanged.
    """
    if system is None or format == "alpaca":
        return row
    if not row.messages:
        contexts = tuple(f"{system}\n\n{context}" for context in row.contexts)
        return replace(row, prompt=f"{system}\n\n{row.prompt}", contexts=contexts)
    if row.messages[0].role in SYSTEM_ROLES:
        return row
    return replace(row, messages=(Message("system", system), *row.messages))


def about_systems(
    system: str | None, parts: Mapping[str, Sequence[Row]], records: Sequence[Record], format: str
) -> list[str]:
    """Return a notice about the rows whose own system prompt replaces the task's."""
    if system is None:
        return []
    rows = [row for part in parts.values() for row in part]
    own = sum(bool(row.messages) and row.messages[0].content != system for row in rows)
    if format == "alpaca":
        own += sum(record.fields.get("system") not in (None, "", system) for record in records)
    return (
        [f"{counted(own, 'row')} with a system prompt of their own, which is used instead of the task's"] if own else []
    )
