"""Folders of data files: the files that are read, and the part of the task that each of them is."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.plain_json import BadJson, read_json_file
from perdure.core.words import counted, some
from perdure.data.read import KNOWN, kind_of
from perdure.data.split import part_named

MOST_FILES = 10_000  # limit for a folder
_SPLITS, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_JSON_BYTES = 2**24  # of a description that `datasets` saves


@dataclass(frozen=True)
class PartFile:
    """One file of a folder.

    Args:
        path: The file.
        shown: Its name in the sources of rows.
        part: Part of the task that its name gives: "train", "validation" or "test"; None where the name gives none.
        split: Name of the split that it belongs to, if the folder names its splits.
    """

    path: Path
    shown: str
    part: str | None = None
    split: str | None = None


def files_in(folder: Path) -> tuple[list[PartFile], list[str]]:
    """Return the data files of a folder in order, and notices about files that are not read.

    A folder that `datasets` saved has its own list of files. Of another folder every data file is read, also in its sub-folders;
    .txt files only where the folder has no tables. Nothing in a folder is executed, and links to folders are not followed.

    Raises:
        BadInput: The folder has no data file or more than `MOST_FILES` files, or the folder that `datasets` saved is broken.
    """
    if (folder / _SPLITS).is_file():
        splits = _described(folder / _SPLITS).get("splits")
        if not isinstance(splits, list) or not all(isinstance(name, str) and _plain(name) for name in splits):
            raise BadInput(
                f"{folder / _SPLITS} does not list the splits of the data set; save it again with save_to_disk"
            )
        return [file for name in splits for file in _saved(folder / name, folder.name, name)], []
    if (folder / _STATE).is_file() and (folder / _INFO).is_file():
        return _saved(folder, folder.name, None), []
    return _data_files(folder)


def part_of_name(name: str) -> str | None:
    """Return the part that the first or the last word of a name gives: "train-00000-of-00002", "spam_test", "dev"."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word and word != "of" and not word.isdigit()]
    return next((part for word in (*words[:1], *words[-1:]) if (part := part_named(word))), None)


# ---- folders that `datasets` saved


def _saved(folder: Path, shown: str, split: str | None) -> list[PartFile]:
    """Return the files of one saved data set, in the order of its rows."""
    state = _described(folder / _STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise BadInput(f"{folder} keeps its rows in another order than its files; save it again with save_to_disk")
    files = state.get("_data_files")
    names = (
        [str(file.get("filename", "")) for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    )
    if not names or len(names) > MOST_FILES or not all(map(_plain, names)):
        raise BadInput(f"{folder / _STATE} does not list the files of the data set; save it again with save_to_disk")
    shown = f"{shown}/{split}" if split else shown
    part = part_of_name(split) if split else None
    return [PartFile(folder / name, f"{shown}/{name}" if len(names) > 1 else shown, part, split) for name in names]


def _described(path: Path) -> Mapping[str, Any]:
    try:
        description = read_json_file(path, _JSON_BYTES)
    except (OSError, BadJson) as error:
        raise BadInput(f"{path} cannot be read: {error}; save the data set again with save_to_disk") from error
    if not isinstance(description, dict):
        raise BadInput(f"{path} does not describe a data set; save it again with save_to_disk")
    return description


def _plain(name: str) -> bool:
    """Return whether a name is a file of its folder, and no path out of it."""
    return 0 < len(name) < 256 and name not in (".", "..") and not any(mark in name for mark in "/\\\0")


# ---- other folders


def _data_files(folder: Path) -> tuple[list[PartFile], list[str]]:
    tables: list[Path] = []
    texts: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder):
        kind = kind_of(path)
        (others if kind is None else texts if kind == ".txt" else tables).append(path)
    read, left = (tables, [*others, *texts]) if tables else (texts, others)
    if not read:
        inside = f"; it holds {some([path.name for path in left])}" if left else ""
        raise BadInput(f"{folder} is a folder without a data file ({KNOWN}){inside}")
    files = [_file(path, folder, documents=not tables) for path in sorted(read)]
    names = [str(path.relative_to(folder)) for path in sorted(left)]
    return files, [f"{folder.name}: not read {counted(len(left), 'file')}: {some(names)}"] if left else []


def _walk(folder: Path) -> list[Path]:
    """Return the files of a folder and its folders, without hidden ones."""
    files: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(root) / name for name in names if not name.startswith(".")]
        if len(files) > MOST_FILES:
            raise BadInput(f"{folder} holds more than {MOST_FILES:,} files; name the data files, or put them into one")
    return files


def _file(path: Path, folder: Path, *, documents: bool) -> PartFile:
    """Return a file with the part that its name gives, else its folder's name; the name of a document gives none."""
    inner = path.relative_to(folder)
    stem = inner.name.split(".")[0]
    names = [*([] if documents else [stem]), *reversed(inner.parts[:-1])]
    part = next(filter(None, map(part_of_name, names)), None)
    return PartFile(path, f"{folder.name}/{inner.as_posix()}", part)
