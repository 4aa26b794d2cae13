"""Data files as records: one dict per row, with its place in the file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.plain_json import BadJson, read_json
from perdure.core.plain_text import quoted
from perdure.data.documents import Documents, read_documents
from perdure.data.tables import Numbered, read_arrow, read_csv, read_parquet, read_tsv
from perdure.data.unpack import decode, read_bytes

_AROUND = " \t\r\n\f\v\u00a0\u200b\ufeff"  # ignored around the name of a column


@dataclass(frozen=True)
class Record:
    """One row of a data file, as read.

    Args:
        fields: Values by column.
        source: "file.jsonl:7". The number is the line in .jsonl, .csv, .tsv and .txt, and the row (from 1) in the others.
    """

    fields: dict[str, Any]
    source: str

    @property
    def columns(self) -> frozenset[str]:
        """Columns with a value. Null counts as absent, since table formats write it where a row has no value."""
        return frozenset(name for name, value in self.fields.items() if value is not None)


def read_records(path: Path) -> list[Record]:
    """Return the rows of a data file, in order; see `read_file`."""
    return read_file(path)[0]


def read_file(path: Path, documents: Documents = "paragraph", shown: str = "") -> tuple[list[Record], list[str]]:
    """Return the rows of a data file in order, and notices about them.

    The file is a .jsonl, .json, .csv, .tsv, .txt (each also .gz), .parquet or .arrow file. A .json file holds a list of objects,
    or `{"data": [...]}`. A byte order mark, blank lines, and spaces around the name of a column are ignored.

    Args:
        path: The file.
        documents: Whether one row of a .txt file is a paragraph or the file.
        shown: Name of the file in the sources of its rows; the last part of its path if empty.

    Raises:
        BadInput: The file is missing, empty, without rows, not UTF-8, broken, hostile, or of another kind.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind is None and path.exists():
        raise BadInput(f"{path}: the kind of this file is unknown; name it {KNOWN}")
    return read_bytes_as(kind or "", read_bytes(path), path, documents, shown)


def kind_of(path: Path) -> str | None:
    """Return the kind of a data file by its name (".csv"); None for another file."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix in _BINARY_READERS:
        return None if name.endswith(".gz") else suffix
    return suffix if suffix in _TEXT_READERS or suffix == ".txt" else None


def read_bytes_as(
    kind: str, data: bytes, path: Path, documents: Documents = "paragraph", shown: str = ""
) -> tuple[list[Record], list[str]]:
    """Return the rows in the bytes of a file of a kind that `kind_of` returns; see `read_file`."""
    if kind in _BINARY_READERS:
        numbered, notices = _BINARY_READERS[kind](data, path)
    elif kind == ".txt":
        numbered, notices = read_documents(decode(data, path), path, documents)
    else:
        numbered, notices = _TEXT_READERS[kind](decode(data, path), path)
    records = list(_records(numbered, path))
    if not records:
        raise BadInput(f"{path} holds no rows; it needs at least one")
    if shown:
        records = [replace(r, source=f"{shown}:{r.source.rpartition(':')[2]}") for r in records]
    return records, notices


def _records(numbered: Numbered, path: Path) -> Iterator[Record]:
    """Return rows as records, without spaces and marks around the names of their columns."""
    clean: dict[str, str] = {}
    for number, fields in numbered:
        if not isinstance(fields, dict):
            raise BadInput(f"{path}:{number} is a {type(fields).__name__}, not an object with named columns")
        clean |= {name: name.strip(_AROUND) for name in fields.keys() - clean.keys()}
        named = {clean[name]: value for name, value in fields.items()}
        if len(named) < len(fields):
            names = [clean[name] for name in fields]
            twice = next(name for name in names if names.count(name) > 1)
            raise BadInput(f"{path}:{number} names the column {quoted(twice)} twice; rename one")
        yield Record(named, f"{path.name}:{number}")


def _read_jsonl(text: str, path: Path) -> tuple[Numbered, list[str]]:
    # Not splitlines(): it also breaks at characters such as U+2028, which are legal inside a JSON string.
    lines = enumerate(text.split("\n"), start=1)
    return ((number, _json_line(line, path, number)) for number, line in lines if line.strip()), []


def _json_line(line: str, path: Path, number: int) -> Any:
    try:
        return read_json(line)
    except BadJson as error:
        column = f", column {error.column}" if error.column else ""
        raise BadInput(
            f"{path}:{number} is broken JSON{column}: {error.problem}; a .jsonl file has one object a line"
        ) from error


def _read_json(text: str, path: Path) -> tuple[Numbered, list[str]]:
    try:
        data = read_json(text)
    except BadJson as error:
        place, column = (f"{path}:{error.line}", f", column {error.column}") if error.line else (path, "")
        raise BadInput(
            f"{place} is broken JSON{column}: {error.problem}; a file with one object a line is .jsonl"
        ) from error
    rows = data.get("data") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise BadInput(f'{path} must hold a list of rows, or an object {{"data": [...]}}')
    return enumerate(rows, start=1), []


_TEXT_READERS: dict[str, Callable[[str, Path], tuple[Numbered, list[str]]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".tab": read_tsv,
}
_BINARY_READERS: dict[str, Callable[[bytes, Path], tuple[Numbered, list[str]]]] = {
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}
KNOWN = ".jsonl, .json, .csv, .tsv, .txt (also with .gz), .parquet or .arrow"
"""Kinds of data files, for errors."""
