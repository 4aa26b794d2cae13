"""Plain text: each document of a .txt file is a row with the column `text`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from perdure.core.words import counted
from perdure.data.tables import Numbered

Documents: TypeAlias = Literal["paragraph", "file"]
"""One row of a .txt file is a paragraph, which ends at a blank line, or the whole file."""

_BLANK = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")


def read_documents(text: str, path: Path, documents: Documents) -> tuple[Numbered, list[str]]:
    """Return the documents of a text with the line where each begins, and a notice of how the text was divided."""
    text = text.replace("\r\n", "\n")
    if documents == "file":
        return [(1, {"text": text.strip("\n")})], []
    paragraphs = list(_paragraphs(text))
    return paragraphs, [
        f"{path.name}: {counted(len(paragraphs), 'paragraph')}, each of them a row (documents: file reads it as one)"
    ]


def _paragraphs(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    line, start = 1, 0
    for blank in (*_BLANK.finditer(text), None):
        piece, end = text[start : blank.start() if blank else len(text)], blank.end() if blank else len(text)
        if piece.strip():
            above = len(piece) - len(piece.lstrip("\n"))
            yield line + above, {"text": piece.strip("\n")}
        line, start = line + text.count("\n", start, end), end
