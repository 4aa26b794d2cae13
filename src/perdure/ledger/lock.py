"""The write lock of a workspace: it names the process that has it, and is released when that process ends."""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from perdure.core.errors import Busy, NotFound, PerdureError
from perdure.core.records import Record


@dataclass(frozen=True)
class Writer(Record):
    """A process that writes to a workspace.

    Args:
        pid: Id of the process.
        command: Its command line.
        time: When it took the lock, as ISO 8601.
    """

    pid: int
    command: str
    time: str


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Hold the write lock of the workspace in `root`. It is not re-entrant; readers need no lock.

    Raises:
        Busy: Another process writes; the message names the process, its command and its start.
        NotFound: There is no such folder.
        PerdureError: The folder is not writable.
    """
    root = Path(root)
    if not root.is_dir():
        raise NotFound(f"{root} is no workspace; run 'perdure init {root}'")
    with _lock_file(root / "lock") as file:
        try:
            # The system drops the lock when the process ends, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{root} is being written by {_holder(file)}; wait for it, or stop it") from None
        with suppress(OSError):  # a full disk: the lock works without a name
            _write(file, json.dumps(_myself().to_json()))
        try:
            yield
        finally:
            with suppress(OSError):
                _write(file, "")


def writer(root: Path) -> Writer | None:
    """Return the process that writes to the workspace in `root` now; None where there is none."""
    try:
        with (root / "lock").open(encoding="utf-8") as file:
            text = json.loads(file.read() or "null")
            if text is None:  # no lock is tested, so that no writer has to wait
                return None
            process = Writer.from_json(text)
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None  # the process that wrote this was killed
    except BlockingIOError:
        return process
    except (OSError, ValueError):  # no lock yet, or one that is being written
        return None


def _lock_file(path: Path) -> TextIO:
    try:
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise PerdureError(
            f"cannot write {path}: {error.strerror}; get write permission, or work on a copy of the workspace"
        ) from error


def _myself() -> Writer:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return Writer(os.getpid(), command, datetime.now(UTC).isoformat(timespec="seconds"))


def _write(file: TextIO, text: str) -> None:
    os.ftruncate(file.fileno(), 0)  # not through the file's buffer, which would try again when it is closed
    os.pwrite(file.fileno(), text.encode(), 0)


def _holder(file: TextIO) -> str:
    """Return a description of the process that wrote the lock file, which is empty for an instant while a lock is taken."""
    file.seek(0)
    try:
        process = Writer.from_json(json.loads(file.read()))
    except ValueError:
        return "another process"
    return f"process {process.pid} ({process.command}) since {process.time}"
