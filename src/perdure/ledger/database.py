"""The SQLite file of a ledger: its tables, its schema version, and transactions that fail in words."""

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


class Words(TypeDecorator[str]):
    """A text column. SQLite stores a value of any type in it, so that what is read is checked."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text.

        Raises:
            BrokenStore: It is none.
        """
        if value is not None and not isinstance(value, str):
            raise BrokenStore(
                f"ledger.sqlite is damaged: {value!r:.40} stands where a text belongs; restore it from a backup "
                "('perdure verify' lists what is wrong)"
            )
        return value


meta = Table("meta", metadata, Column("schema_version", Integer, nullable=False))
applied = Table(  # what was done to this file, of `MIGRATIONS`; no time where it was done before there was this table
    "migrations",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("about", Words, nullable=False),
    Column("time", Words),
)

# `number` is the order of recording. Clocks go backwards; numbers do not.
entries = Table(
    "entries",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Words, nullable=False, unique=True),
    Column("parent", Words),
    Column("kind", Words, nullable=False),
    Column("task", Words),
    Column("time", Words, nullable=False),
    Column("body", JSON, nullable=False),
)
notes = Table(
    "notes",
    metadata,
    Column("entry", Words, primary_key=True),
    Column("key", Words, primary_key=True),
    Column("value", JSON),
)
candidate = Table(  # one row at most
    "candidate",
    metadata,
    Column("place", Integer, primary_key=True),
    Column("id", Words, nullable=False),
    Column("time", Words, nullable=False),
    Column("body", JSON, nullable=False),
    Column("notes", JSON, nullable=False),
)
discarded = Table(  # what the log lists of candidates that were discarded
    "discarded",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Words, nullable=False),
    Column("record", JSON, nullable=False),
)
refs = Table("refs", metadata, Column("name", Words, primary_key=True), Column("entry", Words, nullable=False))
reflog = Table(
    "reflog",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("ref", Words, nullable=False),
    Column("time", Words, nullable=False),
    Column("old", Words),
    Column("new", Words, nullable=False),
    Column("why", Words, nullable=False),
)
# A row without a body has a line in `row_names` if its text is not kept. Without that line it was deleted: the key stays, so
# that nothing brings the text back.
rows = Table(
    "rows",
    metadata,
    Column("key", Words, primary_key=True),
    Column("hash", Words, nullable=False, index=True),
    Column("body", JSON(none_as_null=True)),
)
row_names = Table(
    "row_names",
    metadata,
    Column("key", Words, primary_key=True),
    Column("question", Words, nullable=False),
    Column("label", Words),
    Column("source", Words, nullable=False),
)
# What each row asks, of rows with their text and of rows by name: leaks are found without reading every text.
questions = Table(
    "questions",
    metadata,
    Column("key", Words, primary_key=True),
    Column("question", Words, nullable=False, index=True),
)
tasks = Table(
    "tasks",
    metadata,
    Column("version", Words, primary_key=True),
    Column("name", Words, nullable=False),
    Column("spec", JSON, nullable=False),
)
task_rows = Table(
    "task_rows",
    metadata,
    Column("version", Words, primary_key=True),
    Column("split", Words, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("key", Words, nullable=False),
    Index("task_rows_by_key", "key"),
)
manifests = Table("manifests", metadata, Column("hash", Words, primary_key=True), Column("items", JSON, nullable=False))
scores = Table(
    "scores",
    metadata,
    Column("state", Words, primary_key=True),
    Column("version", Words, primary_key=True),
    Column("time", Words, nullable=False),
    Column("record", JSON, nullable=False),
)


@dataclass(frozen=True)
class Migration:
    """One change of the schema.

    Args:
        version: Schema version that it leads to.
        about: What it is for.
        tables: Tables that it adds.
        fill: Writes into them what follows from the older tables.
    """

    version: int
    about: str
    tables: tuple[Table, ...]
    fill: Callable[[Connection], None] | None = None


def _fill_questions(connection: Connection) -> None:
    """Write down what each row asks."""
    found = dict(connection.execute(select(row_names.c.key, row_names.c.question)).all())
    for key, body in connection.execute(select(rows.c.key, rows.c.body).where(rows.c.body.is_not(None))):
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # damaged: whoever reads the row says so
            found[key] = Row.from_json(body).question
    if found:
        connection.execute(insert(questions), [{"key": key, "question": asked} for key, asked in found.items()])


# Applied in this order by the first transaction that writes; `meta` says how far a file is. Readers read older files too.
MIGRATIONS = (
    Migration(2, "rows whose text is not kept", (row_names,)),
    Migration(3, "leaks are found without reading every row", (questions,), _fill_questions),
    Migration(4, "what was applied is written down", (applied,)),
    Migration(5, "candidates that were discarded are listed", (discarded,)),
)
SCHEMA_VERSION = MIGRATIONS[-1].version


def now() -> str:
    """Return the time in UTC to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Database:
    """Transactions on one ledger file. Readers see a consistent snapshot, also while somebody writes.

    Reading writes nothing: no disk space and no permission is needed for it. Where no writer left a log, the file is read as it
    lies there.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._engine = _engine(self.path)
        self._reader = _engine(self.path, reads=True)
        self._wrote = False
        # A writer asks for the write lock when it begins: a transaction that reads first could not be upgraded later.
        self._writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A snapshot of the ledger.

        Raises:
            Busy: A writer changed the file under a reader that took no lock, as none was needed when it began.
        """
        at_rest = _at_rest(self.path)
        before = _stamp(self.path) if at_rest else None
        engine = self._engine if self._wrote and not at_rest else self._reader  # the first is open already
        try:
            with _in_words(self.path), engine.begin() as connection:
                yield connection
        finally:
            if before is not None and _stamp(self.path) != before:
                raise Busy(f"{self.path} was changed while it was read; run the same command again")

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction: what is done in it happens entirely or, if anything is raised, not at all."""
        self._wrote = True
        with _in_words(self.path), self._writer.begin() as connection:
            _migrate(connection)
            yield connection

    def create_schema(self) -> None:
        """Make the tables unless they are there, in write-ahead mode (a property of the file from then on)."""
        self._pragma("journal_mode=WAL")
        with _in_words(self.path), self._writer.begin() as connection:
            metadata.create_all(connection)
            if connection.execute(select(meta)).first() is None:
                connection.execute(insert(meta).values(schema_version=SCHEMA_VERSION))
                _write_applied(connection, 0)

    def check_schema(self) -> None:
        """Refuse a file of another schema version.

        Raises:
            BrokenStore: The file is of another version than this program's, or no ledger.
        """
        with self.reading() as connection:
            found = connection.execute(select(meta.c.schema_version)).scalar()
        if not isinstance(found, int):
            raise BrokenStore(f"{self.path} has no schema version; restore it from a backup")
        if found < 1:
            raise BrokenStore(
                f"{self.path} has schema version {found}, which no perdure wrote; restore it from a backup"
            )
        if found > SCHEMA_VERSION:
            raise BrokenStore(
                f"{self.path} has schema version {found}, this perdure knows up to {SCHEMA_VERSION}; upgrade perdure"
            )

    def forget_deleted(self) -> None:
        """Write the file anew and empty the write-ahead log: text that was deleted is readable in neither afterwards.

        Raises:
            Busy: Somebody reads from the log, so that it could not be emptied.
        """
        self._outside("VACUUM")  # a page that was split may hold a second copy of a row, which no deletion finds
        self.empty_log()

    def copy_to(self, path: Path) -> None:
        """Write the file as it is at one moment to a new file, without what was deleted from it; somebody may write meanwhile.

        Raises:
            BrokenStore: The file is damaged.
            PerdureError: The disk is full or not writable.
        """
        quoted_path = str(path).replace("'", "''")
        self._outside(f"VACUUM INTO '{quoted_path}'", self._reader)
        with closing(sqlite3.connect(path)) as copy:
            copy.execute("PRAGMA journal_mode=WAL")  # the mode is a property of the file, which the copy has not

    def empty_log(self) -> None:
        """Write what the write-ahead log holds into the file, and empty the log.

        Raises:
            Busy: Somebody reads from the log, so that it could not be emptied.
        """
        if self._pragma("wal_checkpoint(TRUNCATE)") == ["1"]:
            raise Busy(
                f"deleted text still stands in the log of {self.path}, which another process reads; "
                "run the same command again when that is closed"
            )

    @property
    def stamp(self) -> tuple[object, ...]:
        """What changes whenever a transaction writes: time and size of the file and of its log."""
        return _stamp(self.path), _stamp(self.path.with_name(f"{self.path.name}-wal"))

    @property
    def at_rest(self) -> bool:
        """Whether the file holds everything, and no log lies beside it that has something in it."""
        return _at_rest(self.path)

    def missing_tables(self) -> list[str]:
        """Return the names of the tables that every ledger has and this one does not."""
        with self.reading() as connection:
            newer = {
                table.name for step in MIGRATIONS if step.version > version_of(connection) for table in step.tables
            }
            return sorted(set(metadata.tables) - newer - set(inspect(connection).get_table_names()))

    def check_file(self) -> list[str]:
        """Return what SQLite finds wrong with its own file."""
        found = self._outside("PRAGMA integrity_check", self._reader)
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close the connections; the object can still be used and opens them again."""
        self._wrote = False
        self._engine.dispose()
        self._reader.dispose()

    def _pragma(self, text: str) -> list[str]:
        """Run a pragma and return the first column of what it answers."""
        return self._outside(f"PRAGMA {text}")

    def _outside(self, statement: str, engine: Engine | None = None) -> list[str]:
        """Run a statement outside any transaction and return the first column of what it answers."""
        outside = (engine or self._engine).execution_options(begin=None)
        with _in_words(self.path), outside.connect() as connection:
            found = connection.exec_driver_sql(statement)
            return [str(row[0]) for row in found] if found.returns_rows else []


def version_of(connection: Connection) -> int:
    """Return the schema version of the file that a connection reads."""
    return int(connection.execute(select(meta.c.schema_version)).scalar() or 0)


def _migrate(connection: Connection) -> None:
    """Bring a file of an older schema version up to date."""
    found = version_of(connection)
    if not found or found >= SCHEMA_VERSION:
        return
    for step in MIGRATIONS:
        if step.version > found:
            metadata.create_all(connection, tables=step.tables)
            if step.fill:
                step.fill(connection)
    connection.execute(update(meta).values(schema_version=SCHEMA_VERSION))
    _write_applied(connection, found)


def _write_applied(connection: Connection, before: int) -> None:
    """Write down the migrations beyond the schema version that a file had, and of the others those that are not written yet."""
    connection.execute(delete(applied).where(applied.c.version > before))
    known = set(connection.execute(select(applied.c.version)).scalars())
    lines = [
        {"version": step.version, "about": step.about, "time": now() if step.version > before else None}
        for step in MIGRATIONS
        if step.version not in known
    ]
    connection.execute(insert(applied), lines)


def _engine(path: Path, *, reads: bool = False) -> Engine:
    """Return an engine for the file; one that only reads opens it anew each time, as it lies there at that moment."""
    pool: dict[str, Any] = {"poolclass": NullPool} if reads else {}
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, json_serializer=canonical_json, connect_args={"timeout": 30}, **pool)

    @event.listens_for(engine, "do_connect")
    def _find(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        if reads and path.exists():
            # a reader in write-ahead mode makes files beside the ledger, unless it is told that nobody writes
            arguments[:] = [f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if _at_rest(path) else ''}"]
            options["uri"] = True
        elif _frozen(path):
            arguments[:] = [f"{path.absolute().as_uri()}?mode=ro&immutable=1"]
            options["uri"] = True

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves; the driver would say it late, or not at all
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("begin", "BEGIN")
        if statement is not None:
            connection.exec_driver_sql(statement)

    return engine


def _at_rest(path: Path) -> bool:
    """Say whether the file holds everything: no writer has a log beside it, or only an empty one."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size == 0
    except OSError:
        return True


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _frozen(path: Path) -> bool:
    """Say whether nobody here can write: neither we, for want of permission, nor one who writes now and has a log."""
    return not os.access(path.parent, os.W_OK) and path.exists() and not path.with_name(f"{path.name}-wal").exists()


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn the driver's errors into ours."""
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
            f"cannot be kept in {path} as JSON: {error.orig}; give plain numbers, none of them NaN"
        ) from error
