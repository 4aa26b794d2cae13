"""Tables, whose columns are named once: CSV and Parquet."""

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from perdure.core.errors import BadInput
from perdure.core.plain_json import BadJson, read_json
from perdure.core.plain_text import clipped, quoted
from perdure.data.unpack import most

Numbered: TypeAlias = "Iterable[tuple[int, Any]]"

_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}  # besides the comma, with their names
_BATCH = 256  # rows of a Parquet file at once, so that a hostile one is refused before all of it is in memory


# ---- CSV


def read_csv(text: str, path: Path) -> tuple[Numbered, list[str]]:
    """Return the rows of a CSV file with the line each ends in, and a word on its separator where that is no comma.

    Where the header has no comma, a semicolon, tab or vertical bar in it separates. A first line `sep=;` is followed.

    Raises:
        BadInput: The table is broken; the message has the line.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the limit of 128 KiB a cell is shorter than real documents
    before, rest = re.match(r"(?:[ \t]*\r?\n)*", text), text  # blank lines
    skipped = before.end() if before else 0
    declared = re.compile(r'"?sep=([,;|\t])"?[ \t]*\r?\n').match(text, skipped)
    start = declared.end() if declared else skipped
    rest, above = text[start:], text.count("\n", 0, start)
    separator = declared[1] if declared else _separator(rest)
    # "text, label" has a space that belongs to the separator, also before a quote
    spaced = re.match(rf"[^\n]*{re.escape(separator)} ", rest) is not None and _all_spaced(rest, separator)
    reader = csv.reader(io.StringIO(rest, newline=""), strict=True, delimiter=separator, skipinitialspace=spaced)
    notices = (
        [] if separator == "," or declared else [f"{path.name} is separated by {_SEPARATORS[separator]}, and read so"]
    )
    return _csv_rows(reader, path, above), notices


def _separator(text: str) -> str:
    """Return what separates the cells of the header: the comma if there is one outside quotes, else what there is most of."""
    counts = {separator: len(_header(text, separator)) for separator in (",", *_SEPARATORS)}
    return "," if counts[","] > 1 else max(counts, key=lambda separator: counts[separator])


def _all_spaced(text: str, separator: str) -> bool:
    names = _header(text, separator)
    return len(names) > 1 and all(name.startswith(" ") for name in names[1:])


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []


def _csv_rows(reader: Any, path: Path, above: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Return the rows; `above` is the number of lines above the header."""
    begin = above + 1  # of the row that is read: a quote without an end is noticed at the end of the file only
    try:
        header = _names(next(reader, []), path, above + 1)
        begin = above + reader.line_num + 1
        for cells in reader:
            line, begin = above + reader.line_num, above + reader.line_num + 1
            if cells and len(cells) != len(header):
                raise BadInput(
                    f"{path}:{line} has {len(cells)} cells, but the header names {len(header)}; "
                    'put quotes around cells with commas, and write a quote in them as ""'
                )
            if cells:
                # columns without a name are an index, or come from a separator at the end of every line
                yield line, {n: c for n, c in zip(header, cells, strict=True) if c or not n.startswith("column ")}
    except csv.Error as error:
        end = above + reader.line_num
        where = f"{path}:{end} is broken CSV" + (f" (the row begins in line {begin})" if begin < end else "")
        raise BadInput(f"{where}: {error}") from error


def _names(header: list[str], path: Path, line: int) -> list[str]:
    """Return the names of the columns; one without a name is called by its number."""
    names = [name.strip() or f"column {number}" for number, name in enumerate(header, start=1)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise BadInput(f"{path}:{line} must name each column once, and {quoted(twice[0])} appears twice; rename one")
    return names


# ---- Parquet


def read_parquet(data: bytes, path: Path) -> tuple[Numbered, list[str]]:
    """Return the rows of a Parquet file by number; whole numbers that its schema calls classes get their names.

    Raises:
        BadInput: It is no Parquet file, names a column twice, or holds far more than its size.
    """
    # Imported here: loading pyarrow takes longer than `perdure status` may, and only this format needs it.
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BadInput(f"{path} names the column {quoted(twice)} twice; rename one")
        limit = most(len(data))
        rows: list[dict[str, Any]] = []
        size = 0
        for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
            size += batch.nbytes + 64 * batch.num_rows
            if size > limit:
                raise BadInput(
                    f"{path} holds more than {limit // 2**20:,} MiB, far more than its {len(data):,} bytes; "
                    "if that is meant, write it as .jsonl, or split it"
                )
            rows += batch.to_pylist()
        metadata = file.schema_arrow.metadata or {}
    except (pyarrow.ArrowException, OSError, ValueError, ArithmeticError, MemoryError) as error:
        raise BadInput(f"{path} is not a readable Parquet file: {clipped(str(error), 300)}") from error
    classes = class_names(_features(metadata.get(b"huggingface")))
    return ((number, named(row, classes, f"{path}:{number}")) for number, row in enumerate(rows, start=1)), []


def _features(text: bytes | None) -> Any:
    """Return the features that `datasets` wrote into a schema; None where there are none that can be read."""
    try:
        return read_json((text or b"null").decode("utf-8"))["info"]["features"]
    except (BadJson, UnicodeDecodeError, KeyError, TypeError):
        return None


def class_names(features: Any) -> dict[str, list[str]]:
    """Return the names of the classes by column, of features as `datasets` writes them."""
    classes = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            classes[column] = names
    return classes


def named(row: dict[str, Any], classes: dict[str, list[str]], where: str) -> dict[str, Any]:
    """Return a row with each class by its name; -1 means no class, as in a test part without labels.

    Raises:
        BadInput: A number is no class.
    """
    if not classes:
        return row
    changed = dict(row)
    for column, names in classes.items():
        number = row.get(column)
        if isinstance(number, int) and not isinstance(number, bool):
            if not -1 <= number < len(names):
                raise BadInput(f"{where}: {column} is class {number}, but the file names {len(names)} classes, from 0")
            changed[column] = None if number == -1 else names[number]
    return changed
