"""The SQLite file of a ledger: its tables, its schema version, and transactions with clear errors."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    Column,
    Connection,
    Dialect,
    Engine,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, StatementError
from sqlalchemy.pool import NullPool

from perdure.core.canonical import canonical_json
from perdure.core.errors import BadInput, BrokenStore, Busy, PerdureError
from perdure.core.rows import Row

metadata = MetaData()


class CheckedText(TypeDecorator[str]):
    """A text column that checks what it reads, since SQLite stores values of any type in it."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text.

        Raises:
            BrokenStore: The value is no text.
        """
        if value is not None and not isinstance(value, str):
            raise BrokenStore(
                f"ledger.sqlite is damaged: {value!r:.40} is in a column of texts; restore it from a backup "
                "('perdure verify' lists what is wrong)"
            )
        return value


meta = Table("meta", metadata, Column("schema_version", Integer, nullable=False))
applied = (
    Table(  # the `MIGRATIONS` that were applied to this file; without a time where that was before this table existed
        "migrations",
        metadata,
        Column("version", Integer, primary_key=True),
        Column("about", CheckedText, nullable=False),
        Column("time", CheckedText),
    )
)

# `number` is the order of recording. Clocks go backwards; numbers do not.
entries = Table(
    "entries",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", CheckedText, nullable=False, unique=True),
    Column("parent", CheckedText),
    Column("kind", CheckedText, nullable=False),
    Column("task", CheckedText),
    Column("time", CheckedText, nullable=False),
    Column("body", JSON, nullable=False),
)
notes = Table(
    "notes",
    metadata,
    Column("entry", CheckedText, primary_key=True),
    Column("key", CheckedText, primary_key=True),
    Column("value", JSON),
)
candidate = Table(  # at most one row
    "candidate",
    metadata,
    Column("place", Integer, primary_key=True),
    Column("id", CheckedText, nullable=False),
    Column("time", CheckedText, nullable=False),
    Column("body", JSON, nullable=False),
    Column("notes", JSON, nullable=False),
)
discarded = Table(  # the lines of the log about candidates that were discarded
    "discarded",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", CheckedText, nullable=False),
    Column("record", JSON, nullable=False),
)
refs = Table(
    "refs", metadata, Column("name", CheckedText, primary_key=True), Column("entry", CheckedText, nullable=False)
)
reflog = Table(
    "reflog",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("ref", CheckedText, nullable=False),
    Column("time", CheckedText, nullable=False),
    Column("old", CheckedText),
    Column("new", CheckedText, nullable=False),
    Column("why", CheckedText, nullable=False),
)
# A row without a body has a line in `row_names` if its text is not kept. Without that line it was deleted. Its key stays, so
# that the text is not stored again.
rows = Table(
    "rows",
    metadata,
    Column("key", CheckedText, primary_key=True),
    Column("hash", CheckedText, nullable=False, index=True),
    Column("body", JSON(none_as_null=True)),
)
row_names = Table(
    "row_names",
    metadata,
    Column("key", CheckedText, primary_key=True),
    Column("question", CheckedText, nullable=False),
    Column("label", CheckedText),
    Column("source", CheckedText, nullable=False),
)
# The question of each row, whether its text is kept or not: leaks are detected without reading every text.
questions = Table(
    "questions",
    metadata,
    Column("key", CheckedText, primary_key=True),
    Column("question", CheckedText, nullable=False, index=True),
)
tasks = Table(
    "tasks",
    metadata,
    Column("version", CheckedText, primary_key=True),
    Column("name", CheckedText, nullable=False),
    Column("spec", JSON, nullable=False),
)
task_rows = Table(
    "task_rows",
    metadata,
    Column("version", CheckedText, primary_key=True),
    Column("split", CheckedText, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("key", CheckedText, nullable=False),
    Index("task_rows_by_key", "key"),
)
manifests = Table(
    "manifests", metadata, Column("hash", CheckedText, primary_key=True), Column("items", JSON, nullable=False)
)
scores = Table(
    "scores",
    metadata,
    Column("state", CheckedText, primary_key=True),
    Column("version", CheckedText, primary_key=True),
    Column("time", CheckedText, nullable=False),
    Column("record", JSON, nullable=False),
)
guards = Table(  # what is scored and never learned; no entry names one
    "guards",
    metadata,
    Column("name", CheckedText, primary_key=True),
    Column("version", CheckedText, nullable=False),
    Column("position", Integer, nullable=False),
    Column("record", JSON, nullable=False),
)


@dataclass(frozen=True)
class Migration:
    """One change of the schema.

    Args:
        version: Schema version after the change.
        about: Its purpose.
        tables: Tables that it adds.
        fill: Fills them from the older tables.
    """

    version: int
    about: str
    tables: tuple[Table, ...]
    fill: Callable[[Connection], None] | None = None


def _fill_questions(connection: Connection) -> None:
    """Write the question of each row."""
    texts = dict(connection.execute(select(row_names.c.key, row_names.c.question)).all())
    for key, body in connection.execute(select(rows.c.key, rows.c.body).where(rows.c.body.is_not(None))):
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # damaged: reading the row raises the error
            texts[key] = Row.from_json(body).question
    if texts:
        connection.execute(insert(questions), [{"key": key, "question": text} for key, text in texts.items()])


# Applied in this order by the first transaction that writes; `meta` has the version of a file. Readers read older files too.
MIGRATIONS = (
    Migration(2, "rows whose text is not kept", (row_names,)),
    Migration(3, "leaks are found without reading every row", (questions,), _fill_questions),
    Migration(4, "what was applied is written down", (applied,)),
    Migration(5, "candidates that were discarded are listed", (discarded,)),
    Migration(6, "abilities that are scored and never learned", (guards,)),
)
SCHEMA_VERSION = MIGRATIONS[-1].version


def now() -> str:
    """Return the time in UTC to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Database:
    """Transactions on one ledger file. Readers see a consistent snapshot, also while another process writes.

    Reading writes nothing, so it needs neither disk space nor write permission. Where no writer left a log, the file is read as
    it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._engine = _engine(self.path)
        self._reader = _engine(self.path, reads=True)
        self._wrote = False
        # A writer takes the write lock when it begins: a transaction that reads first could not be upgraded later.
        self._writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A snapshot of the ledger.

        Raises:
            Busy: A writer changed the file during a read without a lock (no lock was needed when the read began).
        """
        at_rest = _at_rest(self.path)
        before = _stamp(self.path) if at_rest else None
        engine = self._engine if self._wrote and not at_rest else self._reader  # the first is open already
        try:
            with _translated_errors(self.path), engine.begin() as connection:
                yield connection
        finally:
            if before is not None and _stamp(self.path) != before:
                raise Busy(f"{self.path} was changed while it was read; run the same command again")

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction: all changes in it are written or, if anything is raised, none."""
        self._wrote = True
        with _translated_errors(self.path), self._writer.begin() as connection:
            _migrate(connection)
            yield connection

    def create_schema(self) -> None:
        """Create the tables that are missing, in write-ahead mode, which is a property of the file from then on."""
        self._pragma("journal_mode=WAL")
        with _translated_errors(self.path), self._writer.begin() as connection:
            metadata.create_all(connection)
            if connection.execute(select(meta)).first() is None:
                connection.execute(insert(meta).values(schema_version=SCHEMA_VERSION))
                _write_applied(connection, 0)

    def check_schema(self) -> None:
        """Refuse a file of another schema version.

        Raises:
            BrokenStore: The file has another version than this program, or is no ledger.
        """
        with self.reading() as connection:
            version = connection.execute(select(meta.c.schema_version)).scalar()
        if not isinstance(version, int):
            raise BrokenStore(f"{self.path} has no schema version; restore it from a backup")
        if version < 1:
            raise BrokenStore(
                f"{self.path} has schema version {version}, which no perdure wrote; restore it from a backup"
            )
        if version > SCHEMA_VERSION:
            raise BrokenStore(
                f"{self.path} has schema version {version}, this perdure knows up to {SCHEMA_VERSION}; upgrade perdure"
            )

    def forget_deleted(self) -> None:
        """Rewrite the file and empty the write-ahead log, so that deleted text is readable in neither.

        Raises:
            Busy: Another process reads from the log, so it could not be emptied.
        """
        self._outside(
            "VACUUM"
        )  # a page that was split may have a second copy of a row, which a deletion does not erase
        self.empty_log()

    def copy_to(self, path: Path) -> None:
        """Write a snapshot of the file to a new file, without deleted content. Other processes may write meanwhile.

        Raises:
            BrokenStore: The file is damaged.
            PerdureError: The disk is full or not writable.
        """
        quoted_path = str(path).replace("'", "''")
        self._outside(f"VACUUM INTO '{quoted_path}'", self._reader)
        with closing(sqlite3.connect(path)) as copy:
            copy.execute("PRAGMA journal_mode=WAL")  # the mode is a property of the file that VACUUM does not copy

    def empty_log(self) -> None:
        """Write the content of the write-ahead log into the file, and empty the log.

        Raises:
            Busy: Another process reads from the log, so it could not be emptied.
        """
        if self._pragma("wal_checkpoint(TRUNCATE)") == ["1"]:
            raise Busy(
                f"deleted text is still in the log of {self.path}, which another process reads; "
                "run the same command again when that process has ended"
            )

    @property
    def stamp(self) -> tuple[object, ...]:
        """Time and size of the file and of its log; every transaction that writes changes them."""
        return _stamp(self.path), _stamp(self.path.with_name(f"{self.path.name}-wal"))

    @property
    def at_rest(self) -> bool:
        """Whether all content is in the file, and the log next to it is empty or missing."""
        return _at_rest(self.path)

    def missing_tables(self) -> list[str]:
        """Return the names of the tables that every ledger has and this one does not."""
        with self.reading() as connection:
            newer = {
                table.name for step in MIGRATIONS if step.version > version_of(connection) for table in step.tables
            }
            return sorted(set(metadata.tables) - newer - set(inspect(connection).get_table_names()))

    def check_file(self) -> list[str]:
        """Return the problems that SQLite reports about its own file."""
        problems = self._outside("PRAGMA integrity_check", self._reader)
        return [] if problems == ["ok"] else problems

    def close(self) -> None:
        """Close the connections; the object can still be used and opens them again."""
        self._wrote = False
        self._engine.dispose()
        self._reader.dispose()

    def _pragma(self, text: str) -> list[str]:
        """Run a pragma and return the first column of its result."""
        return self._outside(f"PRAGMA {text}")

    def _outside(self, statement: str, engine: Engine | None = None) -> list[str]:
        """Run a statement outside any transaction and return the first column of its result."""
        outside = (engine or self._engine).execution_options(begin=None)
        with _translated_errors(self.path), outside.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return [str(row[0]) for row in result] if result.returns_rows else []


def version_of(connection: Connection) -> int:
    """Return the schema version of the file that a connection reads."""
    return int(connection.execute(select(meta.c.schema_version)).scalar() or 0)


def _migrate(connection: Connection) -> None:
    """Bring a file of an older schema version up to date."""
    version = version_of(connection)
    if not version or version >= SCHEMA_VERSION:
        return
    for step in MIGRATIONS:
        if step.version > version:
            metadata.create_all(connection, tables=step.tables)
            if step.fill:
                step.fill(connection)
    connection.execute(update(meta).values(schema_version=SCHEMA_VERSION))
    _write_applied(connection, version)


def _write_applied(connection: Connection, before: int) -> None:
    """List the migrations in `applied`: those after the schema version that the file had, and older ones not listed yet."""
    connection.execute(delete(applied).where(applied.c.version > before))
    known = set(connection.execute(select(applied.c.version)).scalars())
    lines = [
        {"version": step.version, "about": step.about, "time": now() if step.version > before else None}
        for step in MIGRATIONS
        if step.version not in known
    ]
    connection.execute(insert(applied), lines)


def _engine(path: Path, *, reads: bool = False) -> Engine:
    """Return an engine for the file. An engine that only reads opens the file anew for each transaction."""
    pool: dict[str, Any] = {"poolclass": NullPool} if reads else {}
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, json_serializer=canonical_json, connect_args={"timeout": 30}, **pool)

    @event.listens_for(engine, "do_connect")
    def _find(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        if reads and path.exists():
            # in write-ahead mode a reader creates files next to the ledger, unless it opens the file as immutable
            arguments[:] = [f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if _at_rest(path) else ''}"]
            options["uri"] = True
        elif _frozen(path):
            arguments[:] = [f"{path.absolute().as_uri()}?mode=ro&immutable=1"]
            options["uri"] = True

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # this module sends BEGIN; the driver would send it late, or not at all
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("begin", "BEGIN")
        if statement is not None:
            connection.exec_driver_sql(statement)

    return engine


def _at_rest(path: Path) -> bool:
    """Return whether all content is in the file: there is no log next to it, or an empty one."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size == 0
    except OSError:
        return True


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _frozen(path: Path) -> bool:
    """Return whether no process writes: this one has no permission, and no other one has a log open."""
    return not os.access(path.parent, os.W_OK) and path.exists() and not path.with_name(f"{path.name}-wal").exists()


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Translate the driver's errors into those of perdure."""
    try:
        yield
    except (JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BrokenStore(f"{path} is not a sound ledger ({error}); restore it from a backup") from error
    except DatabaseError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest detail
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Busy(f"{path} is locked by another process; try again when it is done") from error
        if code == sqlite3.SQLITE_READONLY:
            raise PerdureError(f"{path.parent} is read-only; get write permission, or copy it") from error
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            raise PerdureError(f"cannot use {path}: {error.orig}; free some space and check permissions") from error
        raise BrokenStore(f"{path} is not a sound ledger ({error.orig}); restore it from a backup") from error
    except StatementError as error:
        if not isinstance(error.orig, (TypeError, ValueError)):
            raise
        raise BadInput(
            f"a value cannot be stored in {path} as JSON: {error.orig}; give plain numbers, none of them NaN"
        ) from error
