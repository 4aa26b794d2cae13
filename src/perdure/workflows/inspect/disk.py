"""What takes space on disk, by kind, and what `gc` would free. Nothing here loads a model or torch, or fetches anything."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.core.records import Record
from perdure.ledger import Ledger
from perdure.ledger.integrity import loose_objects, needed_entries, needed_objects
from perdure.ledger.runs import unfinished

MEASURED = ("moments", "estimates", "features")  # folders of what can be measured again


@dataclass(frozen=True)
class DiskView(Record):
    """Bytes on disk, by kind.

    Args:
        base: The base model, wherever it is; None where it is not found.
        adapters: Slots of entries and of the candidate: adapters and edited weights.
        statistics: The state of methods and the tensors of memory, such as teacher distributions.
        unneeded: Objects that no entry and no candidate needs, and files that killed writers left.
        rows: The ledger: entries, notes, rows and scores.
        checkpoints: Learns that were stopped.
        cache: The user's cache of what was measured, for all workspaces, and such files in this workspace.
        gc: What `gc` would free at least: objects, checkpoints and measured files, without records in the ledger.
        abandoned: Objects that `gc --abandoned` would free further.
    """

    base: int | None
    adapters: int
    statistics: int
    unneeded: int
    rows: int
    checkpoints: int
    cache: int
    gc: int
    abandoned: int


def disk(ledger: Ledger) -> DiskView:
    """Return the bytes that a workspace and its base model take on disk."""
    objects, entries = ledger.objects, needed_entries(ledger)
    slots = {
        part for entry in entries for name in entry.slots.values() if name for part in (name, *objects.parts(name))
    }
    lost = {entry.id for entry in ledger.abandoned()}
    guards = ledger.guards()
    loose, named = loose_objects(ledger), needed_objects(objects, entries, guards)
    left = named - needed_objects(objects, [entry for entry in entries if entry.id not in lost], guards)
    unneeded = _bytes(objects.path(name) for name in loose) + _bytes(objects.root.glob("??/.*"))
    runs = ledger.root / "runs"
    own = sum(_size(ledger.root / what) for what in MEASURED)
    return DiskView(
        base=_base(ledger),
        adapters=_bytes(map(objects.path, slots)),
        statistics=_bytes(map(objects.path, named - slots)),
        unneeded=unneeded,
        rows=_bytes(ledger.root.glob("ledger.sqlite*")),
        checkpoints=_size(runs),
        cache=own + _cache(),
        gc=unneeded + own + _stale(runs, ledger),
        abandoned=_bytes(map(objects.path, left)),
    )


def _stale(runs: Path, ledger: Ledger) -> int:
    """Return the bytes of folders that no learn at head goes on from."""
    head = ledger.resolve("head").id
    used = {run.folder for run in unfinished(ledger.root) if run.parent in (None, head)}
    return sum(_size(folder) for folder in runs.glob("*") if folder.is_dir() and folder not in used)


def _base(ledger: Ledger) -> int | None:
    """Return the bytes of the base model where it is on this machine."""
    from perdure.bridges.local_model import local_folder

    folder = local_folder(ledger.model, ledger.config.get("revision"))
    return _size(folder) if folder else None


def _cache() -> int:
    from perdure.bridges.embedded import cache_folder

    try:
        folder = cache_folder()
    except BadInput:  # there is no home
        return 0
    return sum(_size(folder / what) for what in MEASURED)


def _size(folder: Path) -> int:
    """Return the bytes of all files in a folder, of its subfolders too."""
    return _bytes(folder.rglob("*"))


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
