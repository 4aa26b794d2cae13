"""Tables with a header or a schema: CSV, TSV, Parquet and Arrow."""

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
    """Return the rows of a CSV file with the line each ends in, and a notice about its separator where that is no comma.

    Where the header has no comma, a semicolon, tab or vertical bar in it is the separator. A first line `sep=;` sets it.

    Raises:
        BadInput: The table is broken; the message has the line.
    """
    csv.field_size_limit(
        min(sys.maxsize, 2**31 - 1)
    )  # the default limit of 128 KiB per cell is too short for documents
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
    """Return the separator of the header: the comma if one is outside quotes, else the most frequent separator."""
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
    begin = above + 1  # first line of the current row: an unclosed quote is only noticed at the end of the file
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
                # empty columns without a name are an index, or come from a separator at the end of every line
                yield line, {n: c for n, c in zip(header, cells, strict=True) if c or not n.startswith("column ")}
    except csv.Error as error:
        end = above + reader.line_num
        where = f"{path}:{end} is broken CSV" + (f" (the row begins in line {begin})" if begin < end else "")
        raise BadInput(f"{where}: {error}") from error


def _names(header: list[str], path: Path, line: int) -> list[str]:
    """Return the names of the columns; a column without a name gets its number as name."""
    names = [name.strip() or f"column {number}" for number, name in enumerate(header, start=1)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise BadInput(f"{path}:{line} must name each column once, and {quoted(twice[0])} appears twice; rename one")
    return names


# ---- TSV

_IN_QUOTES = re.compile(r'"(?:[^"]|"")*"')


def read_tsv(text: str, path: Path) -> tuple[Numbered, list[str]]:
    """Return the rows of a table separated by tabs, with the line each ends in.

    Where every line has as many cells as the header, a quote that does not enclose a whole cell is text, since some
    programs do not use quotes in such files. Else quotes enclose tabs and line breaks, as in CSV. A header without a tab is CSV.

    Raises:
        BadInput: The table is broken; the message has the line.
    """
    lines = [(n, line.rstrip("\r")) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    width = lines[0][1].count("\t") if lines else 0
    if not width:
        return read_csv(text, path)
    if any(line.count("\t") != width for _, line in lines):
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        return _csv_rows(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter="\t"), path, 0), []
    header = _names([_unquoted(cell) for cell in lines[0][1].split("\t")], path, lines[0][0])
    return _tsv_rows(lines[1:], header), []


def _tsv_rows(lines: Iterable[tuple[int, str]], header: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in lines:
        cells = (_unquoted(cell) for cell in line.split("\t"))
        yield number, {n: c for n, c in zip(header, cells, strict=True) if c or not n.startswith("column ")}


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if _IN_QUOTES.fullmatch(cell) else cell


# ---- Parquet and Arrow


def read_parquet(data: bytes, path: Path) -> tuple[Numbered, list[str]]:
    """Return the rows of a Parquet file by number; numbers of classes in its schema become their names.

    Raises:
        BadInput: It is no Parquet file, names a column twice, or its content is far larger than the file.
    """
    # Imported here: loading pyarrow takes longer than `perdure status` may, and only these formats need it.
    import pyarrow
    from pyarrow import parquet

    with _translated_errors(path, "Parquet"):
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        batches = file.iter_batches(batch_size=_BATCH, use_threads=False)
        return _columnar(file.schema_arrow, batches, len(data), path), []


def read_arrow(data: bytes, path: Path) -> tuple[Numbered, list[str]]:
    """Return the rows of an Arrow file, as `datasets` saves them, by number; classes by name as in `read_parquet`.

    Raises:
        BadInput: It is no Arrow file, names a column twice, or its content is far larger than the file.
    """
    import pyarrow

    with _translated_errors(path, "Arrow"):
        source = pyarrow.BufferReader(data)
        if data.startswith(b"ARROW1"):
            file = pyarrow.ipc.open_file(source)
            return _columnar(file.schema, map(file.get_batch, range(file.num_record_batches)), len(data), path), []
        stream = pyarrow.ipc.open_stream(source)
        return _columnar(stream.schema, stream, len(data), path), []


@contextmanager
def _translated_errors(path: Path, kind: str) -> Iterator[None]:
    """Translate pyarrow's errors into an error of the file."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, ArithmeticError, MemoryError) as error:
        raise BadInput(f"{path} is not a readable {kind} file: {clipped(str(error), 300)}") from error


def _columnar(schema: Any, batches: Iterable[Any], size: int, path: Path) -> Numbered:
    """Return the rows of record batches by number, read at once, so that a hostile file is refused within the limits."""
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise BadInput(f"{path} names the column {quoted(twice)} twice; rename one")
    limit, rows, size_in_memory = most(size), list[dict[str, Any]](), 0
    for batch in batches:
        batch.validate(full=True)  # refuses offsets that lead outside the data
        size_in_memory += batch.nbytes + 64 * batch.num_rows
        if size_in_memory > limit:
            raise BadInput(
                f"{path} holds more than {limit // 2**20:,} MiB, far more than its {size:,} bytes; "
                "if this is intended, write it as .jsonl, or split it"
            )
        rows += batch.to_pylist()
    classes = class_names(_features((schema.metadata or {}).get(b"huggingface")))
    return [(number, named(row, classes, f"{path}:{number}")) for number, row in enumerate(rows, start=1)]


def _features(text: bytes | None) -> Any:
    """Return the features that `datasets` wrote into a schema; None where there are none or they cannot be read."""
    try:
        return read_json((text or b"null").decode("utf-8"))["info"]["features"]
    except (BadJson, UnicodeDecodeError, KeyError, TypeError):
        return None


def class_names(features: Any) -> dict[str, list[str]]:
    """Return the names of the classes by column, for features of `datasets` that are a class or a list of classes."""
    classes = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        while isinstance(feature, list | dict) and (inner := _inner(feature)) is not None:
            feature = inner
        names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            classes[column] = names
    return classes


def _inner(feature: dict[str, Any] | list[Any]) -> Any:
    """Return the feature of the items of a list; None where the feature is no list."""
    if isinstance(feature, list):
        return feature[0] if len(feature) == 1 else None
    return feature.get("feature") if feature.get("_type") in ("Sequence", "List", "LargeList") else None


def named(row: dict[str, Any], classes: dict[str, list[str]], where: str) -> dict[str, Any]:
    """Return a row with each class by its name; -1 means no class, as in a test part without labels.

    Raises:
        BadInput: A number is not the number of a class.
    """
    if not classes:
        return row
    return {
        **row,
        **{name: _named(row[name], classes[name], f"{where}: {name}") for name in classes.keys() & row.keys()},
    }


def _named(value: Any, names: list[str], where: str) -> Any:
    if isinstance(value, list):
        return [_named(item, names, where) for item in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not -1 <= value < len(names):
        raise BadInput(f"{where} is class {value}, but the file names {len(names)} classes, from 0")
    return None if value == -1 else names[value]
