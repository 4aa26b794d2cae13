"""Writing to disk so that a crash leaves either the old file or the new one, never half of one."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from perdure.core.errors import PerdureError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, fsync it, and rename it to `path`.

    Raises:
        PerdureError: The disk is full or not writable; `path` is as it was and the temporary file is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    aside = Path(name)
    mask = os.umask(0)  # mkstemp makes private files; a report or an export is as readable as any other file
    os.umask(mask)
    aside.chmod(0o666 & ~mask)
    try:
        write(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise PerdureError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another place"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically; see `write_atomically`."""
    write_atomically(path, lambda aside: _put(aside, text))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
