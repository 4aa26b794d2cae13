"""Results as tables: a pandas frame for a script, HTML for a notebook.

A result that derives from `Tabular` says in `grid` what its table has; `to_pandas` and the HTML are made from that.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import JsonValue

from perdure.core.errors import BadInput
from perdure.core.records import Record, plain

if TYPE_CHECKING:
    from pandas import DataFrame

R = TypeVar("R", bound=Record)
NOTHING = "-"  # an empty cell


@dataclass(frozen=True)
class Grid:
    """A table.

    Args:
        columns: Heads of the columns.
        rows: The cells, a tuple for each row; None for an empty cell.
        title: A sentence above the table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    title: str = ""


class Tabular(ABC):
    """A result that has a table."""

    @abstractmethod
    def grid(self) -> Grid:
        """Return the table."""

    def to_pandas(self) -> "DataFrame":
        """Return the table as a pandas frame.

        Raises:
            BadInput: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise BadInput(
                "to_pandas needs pandas, which is not installed; run: pip install 'perdure[pandas]', or use to_json()"
            ) from error
        grid = self.grid()
        return DataFrame([list(row) for row in grid.rows], columns=list(grid.columns))

    def _repr_html_(self) -> str:
        """Return the table as HTML, as a notebook shows it."""
        grid = self.grid()
        heads = "".join(f"<th>{escape(head)}</th>" for head in grid.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row) + "</tr>" for row in grid.rows
        )
        title = f"<caption>{escape(grid.title)}</caption>" if grid.title else ""
        return f"<table>{title}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


class Records(tuple[R, ...], Tabular):
    """Records in order, with a row of the table for each."""

    __slots__ = ()

    def to_json(self) -> list[JsonValue]:
        """Return the JSON of each record."""
        return [record.to_json() for record in self]

    def grid(self) -> Grid:
        """Return the fields of the records; a field that is itself an object or a list is one cell."""
        lines = [record.to_json() for record in self]
        columns = tuple(dict.fromkeys(key for line in lines for key in line))
        return Grid(columns, tuple(tuple(line.get(name) for name in columns) for line in lines))


def cells_of(record: Record | None, names: Sequence[str]) -> tuple[object, ...]:
    """Return fields of a record as cells; all empty if there is no record."""
    return tuple(None if record is None else getattr(record, name) for name in names)


def _text(cell: Any) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return cell if isinstance(cell, str) else json.dumps(plain(cell), ensure_ascii=False)
