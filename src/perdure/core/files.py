"""Writing to disk so that a crash leaves either the old file or the new one, never half of one."""

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from perdure.core.errors import PerdureError

PART = 1 << 24  # bytes of a file that are read at a time while its hash is shown
ASIDE = ".perdure-"  # in the names of all temporary files and folders
YOUNG = 1.0  # seconds after which a process has certainly locked its temporary file


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file next to `path`, fsync it, and rename it to `path`.

    Raises:
        PerdureError: The disk is full or not writable; `path` is not changed and the temporary file is removed.
    """
    with _translated_errors(path):
        _make(path.parent)
        _remove_left(path.parent, f".{path.name}")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{ASIDE}")
        aside = Path(name)
        try:
            _lock(handle)
            write(aside)
            _replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Yield a new folder next to `folder`, for the caller to fill and rename; it is removed when the block ends any other way.

    Folders that killed processes left in the same place are removed first.

    Raises:
        OSError: The folder cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_left(folder.parent)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}{ASIDE}"))
    handle = os.open(aside, os.O_RDONLY)
    try:
        _lock(handle)
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(handle)


def remove_left(parent: Path) -> int:
    """Remove the folders of `folder_aside` in `parent` whose process is dead, and return how many there were."""
    return _remove_left(parent, ".", folders=True)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, unless it exists.

    Raises:
        PerdureError: It cannot be created: the path is a file, is under a file, or is not writable.
    """
    with _translated_errors(path):
        _make(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically; see `write_atomically`."""
    write_atomically(path, lambda aside: _put(aside, text))


def save_tensors(tensors: dict[str, Any], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; its error for a failed write, such as a full disk, is translated to OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error


def file_hash(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Args:
        path: The file.
        on_bytes: Called with the number of bytes that were just read, some megabytes at a time.
    """
    with path.open("rb") as file:
        if on_bytes is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while part := file.read(PART):
            digest.update(part)
            on_bytes(len(part))
        return digest.hexdigest()


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Translate the system's errors into PerdureError."""
    try:
        yield
    except OSError as error:
        raise PerdureError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another place"
        ) from error


def _make(folder: Path) -> None:
    """Create a folder and its parents, and sync each one to the disk with its parent folder."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in new:
        _sync(one.parent)


def _lock(handle: int) -> None:
    """Lock an open file or folder for as long as this process has it open."""
    with suppress(OSError):  # a file system without locks, on which nothing is treated as left over
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_left(parent: Path, start: str, *, folders: bool = False) -> int:
    """Remove temporary files, or folders, whose name begins with `start` and that no process has locked with `_lock`."""
    removed = 0
    with suppress(OSError):  # a folder without read permission, or another process removes the same files
        for entry in os.scandir(parent):
            if (
                not entry.name.startswith(start)
                or ASIDE not in entry.name
                or entry.is_dir(follow_symlinks=False) != folders
            ):
                continue
            handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                young = time.time() - os.fstat(handle).st_mtime < YOUNG  # its process may not have locked it yet
                if not young and _is_free(handle):
                    shutil.rmtree(entry.path) if folders else os.unlink(entry.path)
                    removed += 1
            finally:
                os.close(handle)
    return removed


def _is_free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _replace(aside: Path, path: Path) -> None:
    """Rename `aside` to `path`, as readable as any other file, and sync both to the disk."""
    mask = os.umask(
        0
    )  # mkstemp and safetensors create private files; others must be able to read a report or an object
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
