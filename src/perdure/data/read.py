"""Reading a data file into records: one dict per row, and where it stood."""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput


@dataclass(frozen=True)
class Record:
    """One row of a data file, as read.

    Args:
        fields: Values by column.
        source: "file.jsonl:7". The number is the line in .jsonl and .csv, and the row (from 1) in .json and .parquet.
    """

    fields: dict[str, Any]
    source: str

    @property
    def columns(self) -> frozenset[str]:
        """Columns that hold a value; null counts as absent, for table formats write it where a row has nothing."""
        return frozenset(name for name, value in self.fields.items() if value is not None)


def read_records(path: Path) -> list[Record]:
    """Return the rows of a .jsonl, .json, .csv (each also .gz) or .parquet file, in order.

    A .json file holds a list of objects, or `{"data": [...]}`. A byte order mark and blank lines are ignored.

    Raises:
        BadInput: The file is missing, empty, without rows, not UTF-8, broken, or of another kind.
    """
    path = Path(path)
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in (*_TEXT_READERS, ".parquet") or name.endswith(".parquet.gz"):
        known = ", ".join(_TEXT_READERS)
        raise BadInput(f"{path}: cannot tell what kind of file this is; name it {known} (also with .gz) or .parquet")
    data = _read_bytes(path)
    text_reader = _TEXT_READERS.get(suffix)
    numbered = text_reader(_decode(data, path), path) if text_reader else _read_parquet(data, path)
    records = [Record(_object(fields, path, number), f"{path.name}:{number}") for number, fields in numbered]
    if not records:
        raise BadInput(f"{path} holds no rows; it needs at least one")
    return records


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz" and data:
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; check the path") from None
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder; name a file in it") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(
            f"{path} is not a whole gzip file ({error}); compress it again, or drop .gz from its name"
        ) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise BadInput(f"{path} is empty; it needs at least one row")
    return data


def _decode(data: bytes, path: Path) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInput(f"{path} is UTF-16 text; save it as UTF-8")
    if b"\0" in data:
        raise BadInput(
            f"{path} is a binary file, not text; name it by what it is (.parquet, .gz), or export it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{path}:{line} is not UTF-8 text (byte 0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from error


def _read_jsonl(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    # Not splitlines(): it also breaks at U+2028 and its like, which are legal inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise BadInput(
                    f"{path}:{number} is broken JSON, column {error.colno}: {error.msg}; "
                    "a .jsonl file has one object a line"
                ) from error


def _read_json(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}:{error.lineno} is broken JSON, column {error.colno}: {error.msg}; "
            "a file with one object a line is .jsonl"
        ) from error
    rows = data.get("data") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise BadInput(f'{path} must hold a list of rows, or an object {{"data": [...]}}')
    return enumerate(rows, start=1)


def _read_csv(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)  # the limit of 128 KiB a cell is shorter than real documents
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader)
        if len(set(header)) < len(header) or "" in header:
            raise BadInput(f"{path}:1 must name each column once, got {', '.join(header)}")
        for cells in reader:
            if cells and len(cells) != len(header):
                raise BadInput(
                    f"{path}:{reader.line_num} has {len(cells)} cells, but the header names {len(header)}; "
                    'put quotes around cells with commas, and write a quote in them as ""'
                )
            if cells:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num} is broken CSV: {error}") from error


def _read_parquet(data: bytes, path: Path) -> Iterator[tuple[int, Any]]:
    # Imported here: loading pyarrow takes longer than `perdure status` may, and only this format needs it.
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"{path} is not a readable Parquet file: {error}") from error
    return enumerate(rows, start=1)


def _object(fields: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise BadInput(f"{path}:{number} is a {type(fields).__name__}, not an object with named columns")
    return fields


_TEXT_READERS: dict[str, Callable[[str, Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
}
