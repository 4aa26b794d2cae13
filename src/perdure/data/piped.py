"""Rows from stdin, whose kind is detected from its first bytes."""

import sys
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.core.plain_json import BadJson, read_json
from perdure.data.documents import Documents
from perdure.data.read import Record, read_bytes_as

STDIN = Path("-")


def read_stdin(documents: Documents) -> tuple[list[Record], list[str]]:
    """Return the rows from stdin, and notices about them.

    Raises:
        BadInput: stdin is closed, empty, packed, or its rows cannot be read.
    """
    stream = getattr(sys.stdin, "buffer", None)
    data = stream.read() if stream is not None else b""
    if not data.strip():
        raise BadInput("stdin is empty, so - gives no row; it can be read once")
    if data.startswith(b"\x1f\x8b"):
        raise BadInput("stdin is packed with gzip; unpack it before ('gunzip -c FILE | perdure learn TASK -')")
    return read_bytes_as(kind_of_bytes(data), data, Path("stdin"), documents)


def kind_of_bytes(data: bytes) -> str:
    """Return the kind of data by their first bytes: Parquet, Arrow, JSON lines, JSON, a table, or text."""
    if data.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
        return ".parquet" if data.startswith(b"PAR1") else ".arrow"
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    line = start.split(b"\n", 1)[0].rstrip()
    if start.startswith(b"["):
        return ".json"
    if start.startswith(b"{"):
        return ".jsonl" if _is_object(line) else ".json"
    if b"\t" in line:
        return ".tsv"
    return ".csv" if any(mark in line for mark in (b",", b";", b"|")) else ".txt"


def _is_object(line: bytes) -> bool:
    """Return whether a first line is a row of JSON lines, and not the beginning of a JSON object with rows."""
    try:
        value = read_json(line.decode("utf-8"))
    except (BadJson, UnicodeDecodeError):
        return line.endswith(b"}")  # broken JSON lines, whose error names the line
    return isinstance(value, dict) and not isinstance(value.get("data"), list)
