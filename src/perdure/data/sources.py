"""Sources of rows: one or several files, folders, data sets on the hub, or stdin, read as the records of one task."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from perdure.core.errors import BadInput
from perdure.core.plain_text import clipped, quoted, visible
from perdure.core.words import counted, some
from perdure.data.documents import Documents
from perdure.data.folders import PartFile, files_in, part_of_name
from perdure.data.guesses import is_label
from perdure.data.hub_names import HubName, hub_name, is_hub
from perdure.data.piped import STDIN, read_stdin
from perdure.data.read import Record, read_file
from perdure.data.tables import class_names, named

Data: TypeAlias = Path | tuple[Path, ...]
"""A source of rows: one path, or several. A path is a file, a folder, `hub:ORG/NAME`, or `-` for stdin."""

MADE = "made"
"""Reserved as the name of general data: the rows that the base model writes itself. A file of this name is written ./made."""

GENERAL_MADE = Path("made:general")
"""`MADE` as a source."""

HUB_ROWS = 100_000  # rows that are read of each split on the hub, unless the task sets `max_rows`


@dataclass(frozen=True)
class HubSplit:
    """One split of a data set on the hub.

    Args:
        name: Its name.
        rows: Its rows, in order.
        more: Whether the data set has more rows than were read.
    """

    name: str
    rows: Sequence[dict[str, Any]]
    more: bool = False


@dataclass(frozen=True)
class HubData:
    """A data set as it was read from the hub.

    Args:
        name: Its name, with the configuration that was read, and the commit as revision.
        splits: Its splits, in its order.
        features: Its columns as `datasets` describes them, for the names of classes.
    """

    name: HubName
    splits: Sequence[HubSplit]
    features: Mapping[str, Any]


class HubReader(Protocol):
    """Reads data sets from the hub; `bridges.hub_data.read_hub` is the only implementation."""

    def __call__(self, name: HubName, most: int) -> HubData:
        """Return at most `most` rows of each split."""
        ...


@dataclass(frozen=True)
class SourceRows:
    """The rows of a source.

    Args:
        records: The rows in order.
        notices: What the user should know about how they were read.
        data: The source, with the commit of each data set on the hub.
    """

    records: list[Record]
    notices: list[str]
    data: Data


@dataclass(frozen=True)
class _Piece:
    """The rows of one file or split.

    Args:
        name: Its name, for notices.
        records: Its rows.
        part: Part of the task that its name gives; None where it gives none.
    """

    name: str
    records: list[Record]
    part: str | None


def paths_of(data: Data) -> tuple[Path, ...]:
    """Return the paths of a source, at least one."""
    return (data,) if isinstance(data, Path) else data


def shown_data(data: Data, *, short: bool = False) -> str:
    """Return a source for people; `short` leaves out the folders of its files."""
    paths = [path.name if short and not is_hub(path) else str(path) for path in paths_of(data)]
    return some([visible(clipped(path, 200)) for path in paths])


def read_sources(
    data: Data, *, documents: Documents | None = None, most: int | None = None, hub: HubReader | None = None
) -> SourceRows:
    """Return the rows of one source or several, in order.

    Names of files, folders or splits may give the part of the task that they are. Their rows then get a column `split`, unless
    they have one. All rows of a single file are read as one part, whatever its name.

    Args:
        data: The source.
        documents: Whether a row of a .txt file is a paragraph or the file; None takes a paragraph, and the file in a folder.
        most: Largest number of rows of each file or split, from its start; None takes all, and `HUB_ROWS` of the hub.
        hub: Reads data sets from the hub, where this is possible.

    Raises:
        BadInput: A source is missing, broken or empty, or cannot be read here.
    """
    paths = paths_of(data)
    if repeated := [path for path, count in Counter(map(str, paths)).items() if count > 1]:
        raise BadInput(f"{quoted(repeated[0])} is given twice; leave one out")
    pieces: list[_Piece] = []
    notices: list[str] = []
    resolved: list[Path] = []
    for path in paths:
        more_pieces, more_notices, recorded = _read(path, documents, most, hub, alone=len(paths) == 1)
        pieces += more_pieces
        notices += more_notices
        resolved.append(recorded)
    records, more_notices = _by_part(pieces)
    return SourceRows(records, [*notices, *more_notices], resolved[0] if isinstance(data, Path) else tuple(resolved))


def _read(
    path: Path, documents: Documents | None, most: int | None, hub: HubReader | None, *, alone: bool
) -> tuple[list[_Piece], list[str], Path]:
    """Return the pieces of one path, notices, and the path as it is recorded."""
    if path == STDIN:
        records, notices = read_stdin(documents or "paragraph")
        return [_Piece("stdin", records[:most], None)], notices, path
    if is_hub(path):
        return _read_hub(hub_name(path), most or HUB_ROWS, hub)
    if path.is_dir():
        files, notices = files_in(path)
    else:
        files, notices = [PartFile(path, "", None if alone else part_of_name(path.name.split(".")[0]))], []
        documents = documents or "paragraph"
    pieces = []
    for file in files:
        if file.split and not file.part and any(other.part for other in files):
            notices.append(_left_out(path.name, file.split))
            continue
        records, more_notices = read_file(file.path, documents or "file", file.shown)
        notices += more_notices
        pieces.append(_Piece(file.shown or file.path.name, records[:most], file.part))
    return pieces, notices, path


def _read_hub(name: HubName, most: int, hub: HubReader | None) -> tuple[list[_Piece], list[str], Path]:
    if hub is None:
        raise BadInput(f"{name}: data sets of the hub are not read here; download the data set, and give its file")
    read = hub(name, most)
    classes = class_names(read.features)
    parts = {split.name: part_of_name(split.name) for split in read.splits}
    notices, pieces = [], []
    for split in read.splits:
        if parts[split.name] is None and any(parts.values()):
            notices.append(_left_out(str(name), split.name))
            continue
        place = f"{name.repo}/{split.name}"
        rows = [named(row, classes, f"{place}:{n}") for n, row in enumerate(split.rows, start=1)]
        if split.more:
            notices.append(
                f"{place} has more rows than {most:,}, and the first {most:,} are read (max_rows sets the number)"
            )
        records = [Record(row, f"{place}:{n}") for n, row in enumerate(rows, start=1)]
        pieces.append(_Piece(place, records, parts[split.name]))
    if not any(piece.records for piece in pieces):
        raise BadInput(f"{name} holds no rows; it needs at least one")
    return pieces, [f"{name} is read at revision {read.name.revision}", *notices], read.name.path


def _left_out(source: str, split: str) -> str:
    return f"{source}: the split {visible(clipped(split, 60))} is not read, since its name is no part (train, validation, test)"


def _by_part(pieces: Sequence[_Piece]) -> tuple[list[Record], list[str]]:
    """Return all rows, with a column `split` where names give more than one part, and notices about these parts."""
    if len(pieces) == 1:
        return pieces[0].records, []
    pieces, unlabelled = _without_unlabelled(pieces)
    by_part = {part: [p for p in pieces if (p.part or "train") == part] for part in ("train", "validation", "test")}
    if not by_part["validation"] and not by_part["test"]:
        rows = [record for piece in pieces for record in piece.records]
        return rows, [f"{len(rows):,} rows are read from {counted(len(pieces), 'file')}: {_names(pieces)}", *unlabelled]
    more_notices = [
        f"read as {part} rows by name: {_names(some_pieces)} ({sum(len(piece.records) for piece in some_pieces):,})"
        for part, some_pieces in by_part.items()
        if some_pieces
    ]
    marked = [
        record
        if "split" in record.columns
        else replace(record, fields={**record.fields, "split": piece.part or "train"})
        for piece in pieces
        for record in piece.records
    ]
    return marked, [*more_notices, *unlabelled]


def _without_unlabelled(pieces: Sequence[_Piece]) -> tuple[list[_Piece], list[str]]:
    """Return the pieces without test parts that have no labels, as in some public data sets, and notices."""
    filled = {name for p in pieces if p.part != "test" for r in p.records for name in r.columns if is_label(name)}
    unlabelled = [
        p for p in pieces if p.part == "test" and filled and not any(filled & record.columns for record in p.records)
    ]
    more_notices = [
        f"{piece.name} has no labels, and is not read: the test rows are made from the others" for piece in unlabelled
    ]
    return [piece for piece in pieces if piece not in unlabelled], more_notices


def _names(pieces: Sequence[_Piece]) -> str:
    return some([visible(clipped(piece.name, 80)) for piece in pieces])
