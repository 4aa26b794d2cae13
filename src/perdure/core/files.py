"""Writing to disk so that a crash leaves either the old file or the new one, never half of one."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perdure.core.errors import PerdureError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, fsync it, and rename it to `path`.

    Raises:
        PerdureError: The disk is full or not writable; `path` is as it was and the temporary file is gone.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _beside(path)
        try:
            write(aside)
            _replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise PerdureError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another place"
        ) from error


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


def _beside(path: Path) -> Path:
    """Return a new empty file in the folder of `path`, as readable as any other file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    mask = os.umask(0)  # mkstemp makes private files; a report or an export is to be read by others
    os.umask(mask)
    Path(name).chmod(0o666 & ~mask)
    return Path(name)


def _replace(aside: Path, path: Path) -> None:
    """Rename `aside` to `path`, and have file and folder on the disk when this returns."""
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
