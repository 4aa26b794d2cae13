"""Pack a workspace into one archive, unpack an archive into a new workspace, and point a workspace to its base model."""

import gzip
import json
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from perdure.core.errors import BadInput, BrokenStore, Busy, PerdureError
from perdure.core.files import folder_aside, write_atomically, write_text
from perdure.core.outputs import Kind, check_output
from perdure.core.plain_text import quoted
from perdure.core.progress import Tick
from perdure.core.records import Record
from perdure.core.words import counted
from perdure.ledger import Ledger
from perdure.ledger.folder import DATABASE, OBJECTS
from perdure.ledger.integrity import needed_objects
from perdure.ledger.objects import SUFFIX
from perdure.ledger.store import CONFIG, place_of
from perdure.workflows.export.export import new_folder
from perdure.workflows.session import Session

BASE = "base"  # folder of the base model in an archive, and in the workspace that is unpacked from it
ARCHIVE = Kind("workspace archive", lambda _: False)  # an archive that is there is replaced with --force alone
COMPRESSED, PLAIN = (".tar.gz", ".tgz"), (".tar",)
CHUNK = 1 << 20  # bytes read at once
LEVEL = 1  # of gzip: weights hardly shrink, at any level
OWN = re.compile(rf"{CONFIG}|{DATABASE}|{OBJECTS}/[0-9a-f]{{2}}/[0-9a-f]{{64}}{SUFFIX}".replace(".", r"\."))
DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError)


@dataclass(frozen=True)
class Packed(Record):
    """What an archive holds.

    Args:
        file: Path of the archive.
        entries: Number of entries.
        objects: Number of objects.
        base: Whether the base model is in it.
        bytes: Size of the archive.
    """

    file: str
    entries: int
    objects: int
    base: bool
    bytes: int


@dataclass(frozen=True)
class Unpacked(Record):
    """What came of an archive.

    Args:
        workspace: Path of the new workspace.
        entries: Number of entries.
        objects: Number of objects.
        base: Whether the base model came with it.
        model: Name or folder of the base model.
        lacks_model: Whether the base model is a folder that is not there.
    """

    workspace: str
    entries: int
    objects: int
    base: bool
    model: str
    lacks_model: bool


# ---- pack


def pack(
    session: Session, file: Path | str, *, with_base: bool = False, force: bool = False, tick: Tick | None = None
) -> Packed:
    """Write a workspace into one archive: its ledger, the objects that entries name, and the base model on request.

    No lock is taken: the archive holds the ledger as it was at one moment, also while somebody learns. Checkpoints of learns
    that were stopped, and objects that nothing names, stay out. Every object is hashed before it is packed.

    Args:
        session: Of the workspace.
        file: The archive, `.tar`, or compressed as `.tar.gz` or `.tgz`.
        with_base: Pack the base model too.
        force: Replace a file that is there.
        tick: Called with (what, done, total) as work goes on.

    Raises:
        BadInput: The file has another suffix, is there already, or belongs to a workspace.
        BrokenStore: An object is missing or damaged: what is packed would be no backup.
        Busy: `gc` removed objects meanwhile.
        PerdureError: The disk is full or not writable; no part of an archive is left.
    """
    ledger, file = session.ledger, Path(file)
    if not file.name.endswith((*COMPRESSED, *PLAIN)):
        raise BadInput(f"{file} has no suffix of an archive; let it end in .tar.gz, .tgz or .tar")
    check_output(file, ARCHIVE, force=force, workspaces=[ledger.root])
    base = _base_files(session, tick) if with_base else {}
    place = file.resolve()
    try:
        with folder_aside(place) as aside:
            copy = _snapshot(ledger, aside, with_base)
            candidate = copy.candidate()
            entries = [*copy.entries(), *([candidate] if candidate else [])]
            names = sorted(needed_objects(ledger.objects, entries, copy.guards()))
            recorded = len(copy.entries())
            copy.close()
            stored = {name: ledger.objects.path(name) for name in names}
            files = {CONFIG: aside / CONFIG, DATABASE: aside / DATABASE}
            files |= {f"{OBJECTS}/{path.parent.name}/{path.name}": path for path in stored.values()}
            _check_objects(ledger, names, tick)
            write_atomically(place, lambda path: _write(path, place.name, {**files, **base}, tick))
    except OSError as error:
        raise PerdureError(
            f"cannot write {file}: {error.strerror or error}; free some space or choose another place"
        ) from error
    return Packed(str(file), recorded, len(names), with_base, file.stat().st_size)


def _base_files(session: Session, tick: Tick | None) -> dict[str, Path]:
    """Return the files of the base model by their names in the archive.

    Raises:
        BrokenStore: It is not the model that the workspace was made with.
    """
    from perdure.bridges import identity

    folder = session.base_folder
    identity.check_unchanged(folder, session.ledger.config["weights"], tick)
    return {f"{BASE}/{path.relative_to(folder).as_posix()}": path for path in identity.files_of(folder)}


def _snapshot(ledger: Ledger, folder: Path, with_base: bool) -> Ledger:
    """Copy configuration and database, as they are at one moment, into a folder."""
    config = {**ledger.config, **({"model_here": BASE} if with_base else {})}
    ledger.copy_to(folder / DATABASE)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return Ledger.open(folder)


def _check_objects(ledger: Ledger, names: list[str], tick: Tick | None) -> None:
    for done, name in enumerate(names, start=1):
        if not ledger.objects.verify(name):
            raise BrokenStore(
                f"object {name[:12]} is missing or damaged, so that nothing is packed; 'perdure verify' lists what is wrong"
            )
        if tick:
            tick("hashing objects", done, len(names))


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tarfile.TarFile]:
    """Open an archive to write, compressed if its name ends so."""
    with path.open("wb") as file, ExitStack() as stack:
        stream: Any = file
        if name.endswith(COMPRESSED):
            stream = stack.enter_context(gzip.GzipFile("", "wb", LEVEL, file, mtime=0))
        yield stack.enter_context(tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT))


def _write(path: Path, name: str, files: dict[str, Path], tick: Tick | None) -> None:
    """Write files into an archive, in order. Times and owners are left out: the same files make the same archive."""
    with _opened(path, name) as archive:
        for done, (member, source) in enumerate(files.items(), start=1):
            info = tarfile.TarInfo(member)
            info.mode = 0o644
            try:
                with source.open("rb") as content:
                    info.size = source.stat().st_size
                    archive.addfile(info, content)
            except FileNotFoundError as error:
                raise Busy(
                    f"{source} was removed while it was packed, as by 'perdure gc'; run the same command again"
                ) from error
            if tick:
                tick("packing", done, len(files))


# ---- unpack


def unpack(file: Path | str, folder: Path | str, tick: Tick | None = None) -> Unpacked:
    """Make a new workspace of an archive, and hash everything in it; nothing is left of an archive that is not sound.

    Args:
        file: An archive that `pack` wrote.
        folder: The folder of the workspace; it must not be there.
        tick: Called with (what, done, total) as work goes on.

    Raises:
        BadInput: The folder is there, or the file is no archive of a workspace, or one that is damaged or cut off.
        BrokenStore: What is in the archive is not what was recorded.
        PerdureError: The disk is full or not writable.
    """
    file, folder = Path(file), Path(folder)
    if folder.exists() or folder.is_symlink():
        raise BadInput(f"{folder} is there already; name a folder that is not, nothing is ever overwritten")
    if not file.is_file():
        raise BadInput(f"there is no file {file}; check the path")
    with new_folder(folder) as aside:
        with _reading(file) as archive:
            _extract(archive, file, aside, tick)
        if not (aside / CONFIG).is_file() or not (aside / DATABASE).is_file():
            raise BadInput(
                f"{file} holds no workspace: it lacks {CONFIG} or {DATABASE}; give an archive of 'workspace pack'"
            )
        ledger = Ledger.open(aside)
        if tick:
            tick("hashing entries and objects", 0, 1)
        verified = ledger.verify(tick)
        if problems := verified.problems:
            raise BrokenStore(
                f"{file} is not sound, and nothing is unpacked: {problems[0]}{_others(len(problems) - 1)}"
            )
        has_base = _check_base(file, ledger, tick)
        ledger.close()
    ledger = Ledger.open(folder)
    lacks = Path(ledger.model).is_absolute() and not Path(ledger.model).is_dir()
    return Unpacked(str(folder), verified.entries, verified.objects, has_base, ledger.model, lacks)


def _others(count: int) -> str:
    return f", and {counted(count, 'other problem')}" if count else ""


def _check_base(file: Path, ledger: Ledger, tick: Tick | None) -> bool:
    """Return whether the archive brought a base model; what changes with its files' times is noted anew.

    Raises:
        BrokenStore: It is another model than the workspace was made with.
    """
    from perdure.bridges import identity

    folder = ledger.root / BASE
    if not folder.is_dir():
        return False
    try:
        identity.check_unchanged(folder, ledger.config["weights"], tick)
    except (BadInput, BrokenStore) as error:
        raise BrokenStore(
            f"the base model in {file} is not the one of the workspace, and nothing is unpacked: {error}"
        ) from error
    ledger.configure(model_here=BASE, stamp=identity.stamp(folder))
    return True


@contextmanager
def _reading(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:*") as archive:
            yield archive
    except tarfile.ReadError as error:
        raise BadInput(
            f"{file} is no archive of a workspace, or it is damaged or cut off; give a whole file that 'perdure workspace pack' "
            "wrote"
        ) from error
    except DAMAGED as error:
        raise BadInput(
            f"{file} is no archive of a workspace, or it is damaged or cut off ({quoted(error)}); copy it again"
        ) from error


def _extract(archive: tarfile.TarFile, file: Path, folder: Path, tick: Tick | None) -> None:
    """Write the files of an archive into a folder; only regular files with names that `pack` gives are taken."""
    known: set[str] = set()
    for info in archive:
        _refuse_member(info, file)
        if info.name in known:
            raise BadInput(f"{file} holds {quoted(info.name)} twice; no 'workspace pack' wrote it")
        known.add(info.name)
        free = shutil.disk_usage(folder).free
        if info.size > free:
            raise PerdureError(
                f"{info.name} takes {info.size:,} bytes, and the disk of {folder.parent} has {free:,} free; free some space"
            )
        source, target = archive.extractfile(info), folder / info.name
        if source is None:
            raise BadInput(f"{file} holds {quoted(info.name)}, which is no regular file")
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, target.open("xb") as written:
            shutil.copyfileobj(source, written)
        if tick:
            tick("unpacking", len(known), len(known))
    while archive.fileobj and archive.fileobj.read(CHUNK):
        pass  # to the end of the file: the checksum of what is compressed stands there, and tar stops before it


def _refuse_member(info: tarfile.TarInfo, file: Path) -> None:
    """Refuse what `pack` does not write: links, devices, folders, and paths that lead elsewhere."""
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise BadInput(f"{file} holds {quoted(info.name)}, which is no regular file; no 'workspace pack' wrote it")
    parts = PurePosixPath(info.name).parts
    is_base = (
        len(parts) > 1 and parts[0] == BASE and ".." not in parts and info.name.isprintable() and "\\" not in info.name
    )
    if not is_base and not OWN.fullmatch(info.name):
        raise BadInput(f"{file} holds {quoted(info.name)}, which belongs to no workspace; no 'workspace pack' wrote it")


# ---- relocate


def relocate(session: Session, model: str, *, revision: str | None = None, tick: Tick | None = None) -> Path:
    """Point a workspace to where its base model is now, and return the folder of the model.

    Args:
        session: Of the workspace.
        model: Local folder, hub id, or name of the embedded model.
        revision: Revision of a hub model.
        tick: Called with (what, done, total) as work goes on.

    Raises:
        BadInput: There is no such model, or it is another one than the workspace was made with, by the hashes of its files.
        Busy: Another process writes to the workspace.
    """
    from perdure.bridges import identity, models

    ledger = session.ledger
    folder = models.find_model(model, revision)
    with session.writing():
        try:
            identity.check_unchanged(folder, ledger.config["weights"], tick)
        except BrokenStore as error:
            raise BadInput(
                f"{model} is not the base model of this workspace, which stays as it was: {error}"
            ) from error
        local = Path(model).is_dir()
        ledger.configure(
            model=str(folder) if local else model,
            revision=None if local else revision,
            model_here=place_of(ledger.root, folder) if local else None,
            stamp=identity.stamp(folder),
        )
    return folder
