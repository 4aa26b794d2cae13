"""The ledger of a workspace: one folder with `perdure.json`, `ledger.sqlite` and `objects/`."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, cast

from sqlalchemy import Text, or_, select, type_coerce

from perdure.core.config import Config
from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.core.files import make_folder, write_text
from perdure.core.plain_json import read_json
from perdure.core.plain_text import quoted
from perdure.core.progress import Tick
from perdure.core.slots import INITIAL
from perdure.ledger import integrity
from perdure.ledger.database import manifests, rows, task_rows, tasks
from perdure.ledger.entry import Entry
from perdure.ledger.folder import DATABASE
from perdure.ledger.names import NamedTasks
from perdure.ledger.records import ADAPTER, DeletedRow, Freed, Verification
from perdure.ledger.row_keys import HELD_OUT

FORMAT = 1  # of the folder; the schema of ledger.sqlite has its own number
NEEDED = ("base", "model", "weights", "dtype")  # required keys of perdure.json, besides "format"
CONFIG = "perdure.json"
# Further keys of perdure.json; a workspace of an older perdure lacks some of them.
OPTIONAL: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "revision": (str, NoneType),
    "quantization": (str,),
    "attn_implementation": (str,),
    "model_here": (str, NoneType),
    "keep_rows": (str,),
    "guards": (str,),
    "capabilities": (dict,),
    "aliases": (dict,),
}

KeepRows = Literal["all", "needed"]


class Ledger(NamedTasks):
    """All records of a workspace.

    Reading needs no lock. A writer holds `writing(root)` for its whole work, from the first stored object to the last note.
    """

    @classmethod
    def create(
        cls, root: Path | str, config: Config, initial: Mapping[str, Any] | None = None, note: object = None
    ) -> "Ledger":
        """Create a workspace whose base entry is both `base` and `head`.

        Args:
            root: The folder; it is created if it does not exist.
            config: The content of `perdure.json`. "base" is the hash of the base model; "seed" goes into the base entry. "model"
                (name or path), "weights" (hash of the weights) and "dtype" are for callers, and `open` requires them.
            initial: Tensors of the slot `initial` of the base entry: an adapter that is part of the base for all that follows.
            note: What to note of it.

        Raises:
            BadInput: The folder is a workspace already.
            PerdureError: The folder cannot be created.
        """
        root = Path(root)
        cls.refuse_existing(root)
        make_folder(root)
        ledger = cls(root, _with({"format": FORMAT}, config))
        slots: dict[str, str | None] = {} if initial is None else {INITIAL: ledger.objects.put(initial)}
        base = Entry(parent=None, kind="base", base=config["base"], seed=config.get("seed", 0), slots=slots)
        ledger.create_schema()
        if any(entry.id != base.id for entry in ledger.entries()):
            raise BrokenStore(
                f"{root} has a {DATABASE} of other work but no {CONFIG}; restore that, or choose another folder"
            )
        with ledger.changing() as connection:
            ledger._insert(connection, base, {} if initial is None else {ADAPTER: note})
            ledger._point(connection, "base", base.id, "init")
            ledger._point(connection, "head", base.id, "init")
        write_text(root / CONFIG, json.dumps(ledger.config, indent=2) + "\n")  # last: with it the folder is a workspace
        return ledger

    @staticmethod
    def refuse_existing(root: Path) -> None:
        """Refuse a folder that is a workspace already.

        Raises:
            BadInput: The folder is a workspace.
        """
        if (root / CONFIG).exists():
            raise BadInput(f"{root} is a workspace already; choose another folder, or continue with this one")

    @classmethod
    def open(cls, root: Path | str) -> "Ledger":
        """Open the workspace in a folder.

        Raises:
            NotFound: The folder is no workspace.
            BrokenStore: Its content cannot be read, or only by another version of perdure.
        """
        root = Path(root)
        if not (root / CONFIG).exists():
            raise NotFound(f"{root} is no workspace; run 'perdure init {root}'")
        ledger = cls(root, _read_config(root / CONFIG))
        if not ledger.path.exists():
            raise BrokenStore(f"{root} has no {DATABASE}; restore it from a backup")
        ledger.check_schema()
        return ledger

    @property
    def model(self) -> str:
        """Name or folder of the base model; the current folder of a model in or next to the workspace."""
        named, folder = str(self.config["model"]), self.model_folder
        return str(folder) if folder and Path(named).is_absolute() else named

    @property
    def model_folder(self) -> Path | None:
        """Folder of the base model in or next to the workspace; None where there is none."""
        here = self.config.get("model_here")
        place = (self.root / here).resolve() if here else None
        return place if place and place.is_dir() else None

    def configure(self, **values: object) -> None:
        """Change values of `perdure.json`; only under the write lock, or while the folder is created."""
        self.config = _with(self.config, values)
        write_text(self.root / CONFIG, json.dumps(self.config, indent=2) + "\n")

    @property
    def keep_rows(self) -> KeepRows:
        """Which rows are kept with their text; "all" in a workspace from before this setting existed."""
        return "needed" if self.config.get("keep_rows") == "needed" else "all"

    def entries_trained_on(self, row_hash: str) -> list[str]:
        """Return the ids of the entries that depend on a row, oldest first, the candidate last.

        These are the entries with a task version that trains on the row or with a memory that has it, and all their
        descendants.
        """
        with self.reading() as connection:
            keys = list(connection.execute(select(rows.c.key).where(rows.c.hash == row_hash)).scalars())
            trains = task_rows.c.key.in_(keys) & task_rows.c.split.not_in(HELD_OUT)
            versions = set(connection.execute(select(task_rows.c.version).where(trains)).scalars())
            holds = or_(False, *(type_coerce(manifests.c["items"], Text).contains(key) for key in keys))
            memories = set(connection.execute(select(manifests.c.hash).where(holds)).scalars())
        candidate = self.candidate()
        trained: dict[str, None] = {}
        for entry in [*self.entries(), *([candidate] if candidate else [])]:
            if entry.parent in trained or versions & set(entry.tasks.values()) or entry.memory in memories:
                trained[entry.id] = None
        return list(trained)

    def delete_row(self, row_hash: str) -> DeletedRow:
        """Erase the text of a row from every task part and every manifest, permanently. Ids and hashes do not change.

        Erasing a row again changes nothing.

        Raises:
            NotFound: No row has this hash.
            Busy: The text is erased, but a reader uses the log, which still has it; call this again.
        """
        keys, fresh = self._blank(row_hash)
        query = select(tasks.c.name).join(task_rows, task_rows.c.version == tasks.c.version)
        held_out = task_rows.c.key.in_(keys) & task_rows.c.split.in_(HELD_OUT)
        with self.reading() as connection:
            tests = sorted(set(connection.execute(query.where(held_out)).scalars()))
        trained = self.entries_trained_on(row_hash)
        return DeletedRow(row_hash, len(keys), not fresh, tuple(trained), tuple(tests))

    def tasks_trained_on(self, row_hash: str) -> list[str]:
        """Return the names of the tasks that train on a row of this hash, deleted or not."""
        query = (
            select(tasks.c.name)
            .join(task_rows, task_rows.c.version == tasks.c.version)
            .join(rows, rows.c.key == task_rows.c.key)
            .where(rows.c.hash == row_hash, task_rows.c.split.not_in(HELD_OUT))
        )
        with self.reading() as connection:
            return sorted(set(connection.execute(query).scalars()))

    def verify(self, tick: Tick | None = None) -> Verification:
        """Hash everything again; see `integrity.verify`."""
        return integrity.verify(self, tick)

    def damage(self) -> str | None:
        """Return the first problem of the records; see `integrity.damage`."""
        return integrity.damage(self)

    def gc(self, abandoned: Collection[str] = ()) -> Freed:
        """Delete everything that nothing refers to; see `integrity.gc`."""
        return integrity.gc(self, abandoned)


def place_of(root: Path, folder: Path) -> str | None:
    """Return the path of a model in or next to a workspace, relative to the workspace; None where it is elsewhere."""
    root, folder = root.resolve(), folder.resolve()
    if folder.is_relative_to(root):
        return folder.relative_to(root).as_posix() if folder != root else None
    parent = root.parent
    is_near = parent != parent.parent and folder.is_relative_to(parent) and folder != parent
    return f"../{folder.relative_to(parent).as_posix()}" if is_near else None


def _with(config: Mapping[str, object], values: Mapping[str, object]) -> Config:
    """Return a configuration with other values, in the order of the keys."""
    return cast(Config, {**config, **values})


def _read_config(path: Path) -> Config:
    """Read `perdure.json`.

    Raises:
        BrokenStore: It is no JSON, lacks a required key, or has another format.
    """
    try:
        config = read_json(path.read_text(encoding="utf-8"))
        newer, sound = config["format"] > FORMAT, config["format"] >= 1
        lacks = [key for key in NEEDED if not isinstance(config.get(key), str)]
        wrong = [key for key, kinds in OPTIONAL.items() if key in config and not isinstance(config[key], kinds)]
        if not wrong and not all(isinstance(name, str) for name in config.get("aliases", {}).values()):
            wrong = ["aliases"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenStore(f"{path} cannot be read ({quoted(error)}); restore it from a backup") from error
    if newer:
        raise BrokenStore(
            f"{path} has format {quoted(config['format'])}, this perdure knows up to {FORMAT}; upgrade perdure"
        )
    if not sound:
        raise BrokenStore(
            f"{path} has format {quoted(config['format'])}, which no perdure wrote; restore it from a backup"
        )
    if lacks:
        raise BrokenStore(f"{path} does not have {', '.join(lacks)}; restore it from a backup")
    if wrong:
        raise BrokenStore(f"{path} has a value of {wrong[0]} that no perdure wrote; restore it from a backup")
    return cast(Config, config)
