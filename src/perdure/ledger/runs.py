"""Learns that were stopped: each has a folder under `runs/` with a checkpoint and a description of the learn.

Where the adapter starts from factors that were computed from data, the folder has these too.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from perdure.core.files import write_text

CHECKPOINT, START, ABOUT = "checkpoint.safetensors", "start.safetensors", "about.json"


@dataclass(frozen=True)
class Run:
    """A learn that can be resumed from a checkpoint.

    Args:
        folder: The folder of its checkpoint.
        time: When the checkpoint was written, in UTC to the second, as ISO 8601.
        task: Name of the task; None where it is not known.
        parent: Id of the entry that was head when it began; None where it is not known.
    """

    folder: Path
    time: str
    task: str | None = None
    parent: str | None = None

    def remove(self) -> int:
        """Delete the folder and return the bytes that this freed."""
        size = sum(path.stat().st_size for path in self.folder.iterdir())
        shutil.rmtree(self.folder)
        return size


def note(folder: Path, task: str, parent: str) -> None:
    """Write the description of a learn, before it trains.

    Raises:
        PerdureError: The disk is full or not writable.
    """
    write_text(folder / ABOUT, json.dumps({"task": task, "parent": parent}) + "\n")


def sweep(root: Path) -> int:
    """Delete folders without a checkpoint and incomplete files of killed writers; return the bytes.

    Only under the write lock.
    """
    freed = 0
    for folder in (root / "runs").glob("*"):
        if folder.is_dir() and not (folder / CHECKPOINT).exists():
            freed += Run(folder, "").remove()
    for path in (root / "runs").glob("*/.*"):
        freed += path.stat().st_size
        path.unlink()
    return freed


def unfinished(root: Path) -> list[Run]:
    """Return the learns of a workspace that were stopped, oldest first."""
    return sorted(_read_all(root), key=lambda run: run.time)


def _read_all(root: Path) -> Iterator[Run]:
    for path in (root / "runs").glob(f"*/{CHECKPOINT}"):
        time = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        try:
            about = json.loads((path.parent / ABOUT).read_text(encoding="utf-8"))
            yield Run(path.parent, time, about["task"], about["parent"])
        except (OSError, ValueError, KeyError, TypeError):  # an older version wrote none, or it is damaged
            yield Run(path.parent, time)
