"""Writing to disk so that a crash leaves either the old file or the new one, never half of one."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure.core.errors import PerdureError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, fsync it, and rename it to `path`.

    Raises:
        PerdureError: The disk is full or not writable; `path` is as it was and the temporary file is gone.
    """
    with _in_words(path):
        _make(path.parent)
        aside = _beside(path)
        try:
            write(aside)
            _replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        PerdureError: It cannot be made: the place is a file, lies under one, or is not writable.
    """
    with _in_words(path):
        _make(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically; see `write_atomically`."""
    write_atomically(path, lambda aside: _put(aside, text))


def save_tensors(tensors: dict[str, Any], path: Path, told: dict[str, str] | None = None) -> None:
    """Write a safetensors file; its own error for a failed write, such as a full disk, becomes the OSError it was."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, told)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise PerdureError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another place"
        ) from error


def _make(folder: Path) -> None:
    """Make a folder and those above it, each one on the disk in the folder that holds it."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in new:
        _sync(one.parent)


def _beside(path: Path) -> Path:
    """Return a new empty file in the folder of `path`."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    return Path(name)


def _replace(aside: Path, path: Path) -> None:
    """Rename `aside` to `path`, as readable as any other file, and have both on the disk when this returns."""
    mask = os.umask(0)  # mkstemp and safetensors make private files; a report or an object is to be read by others
    os.umask(mask)
    aside.chmod(0o666 & ~mask)
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
