"""Queries on the rows, tasks and manifests of a ledger, inside a transaction."""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from perdure.core.errors import BrokenStore
from perdure.core.rows import Row, RowName
from perdure.ledger.database import manifests, questions, row_names, rows, task_rows, tasks, version_of
from perdure.ledger.row_keys import PLACES, row_key

CHUNK = 10_000  # keys in one query; SQLite takes 32766 parameters


def insert_rows(connection: Connection, batch: Iterable[Row | RowName]) -> list[str]:
    """Insert new rows, with or without text, and add the text of known rows that had none; return all keys."""
    keyed = [(row.key if isinstance(row, RowName) else row_key(row), row) for row in batch]
    missing = dict(keyed)
    known = known_keys(connection, missing)
    if fresh := {key: row for key, row in missing.items() if key not in known}:
        values = [{"key": key, "hash": row.hash, "body": _body(row)} for key, row in fresh.items()]
        connection.execute(insert(rows), values)
        connection.execute(insert(questions), [{"key": key, "question": row.question} for key, row in fresh.items()])
    if names := [_name_values(row) for row in fresh.values() if isinstance(row, RowName)]:
        connection.execute(insert(row_names), names)
    for key in name_keys(connection, known):
        row = missing[key]
        if isinstance(row, Row):
            connection.execute(update(rows).where(rows.c.key == key).values(body=row.to_json()))
            connection.execute(delete(row_names).where(row_names.c.key == key))
    return [key for key, _ in keyed]


def _body(row: Row | RowName) -> dict[str, Any] | None:
    return row.to_json() if isinstance(row, Row) else None


def _name_values(name: RowName) -> dict[str, Any]:
    return {"key": name.key, "question": name.question, "label": name.label, "source": name.source}


def replace_by_name(connection: Connection, name: RowName) -> None:
    """Replace a row's text by its name."""
    connection.execute(insert(row_names), [_name_values(name)])
    connection.execute(update(rows).where(rows.c.key == name.key).values(body=None))


def same_rows(connection: Connection, wanted: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return hash and question, by key, of the rows that have one of these hashes or questions, without deleted ones."""
    if version_of(connection) < 3:  # an old file without the table of questions: every row has to be read
        every = _questions_of_old(connection)
        return {key: pair for key, pair in every.items() if pair[0] in wanted or pair[1] in wanted}
    pairs: dict[str, tuple[str, str]] = {}
    joined = select(rows.c.key, rows.c.hash, questions.c.question).join(questions, questions.c.key == rows.c.key)
    for chunk in chunks(wanted):
        for column in (rows.c.hash, questions.c.question):
            pairs.update((key, (name, text)) for key, name, text in connection.execute(joined.where(column.in_(chunk))))
    return pairs


def _questions_of_old(connection: Connection) -> dict[str, tuple[str, str]]:
    """Return hash and question of every row by key, in a file with a schema version below 3."""
    bodies = select(rows.c.key, rows.c.hash, rows.c.body).where(rows.c.body.is_not(None))
    pairs = {key: (name, read_row(key, body).question) for key, name, body in connection.execute(bodies)}
    if version_of(connection) >= 2:
        named = select(rows.c.key, rows.c.hash, row_names.c.question).join(row_names, row_names.c.key == rows.c.key)
        pairs.update((key, (name, question)) for key, name, question in connection.execute(named))
    return pairs


def name_keys(connection: Connection, among: Iterable[str] | None = None) -> set[str]:
    """Return the keys of the rows that are kept without text, all of them or those in `among`."""
    if version_of(connection) < 2:
        return set()
    if among is None:
        return set(connection.execute(select(row_names.c.key)).scalars())
    keys: set[str] = set()
    for chunk in chunks(among):
        keys.update(connection.execute(select(row_names.c.key).where(row_names.c.key.in_(chunk))).scalars())
    return keys


def deleted_rows(connection: Connection) -> dict[str, str]:
    """Return row hash by key of the rows that were deleted."""
    empty = connection.execute(select(rows.c.key, rows.c.hash).where(rows.c.body.is_(None))).all()
    names = name_keys(connection)
    return {key: row_hash for key, row_hash in empty if key not in names}


def places_of_rows(connection: Connection) -> dict[str, set[str]]:
    """Return the places of each row, by key: the parts of tasks that have it, and "memory"."""
    places: dict[str, set[str]] = {}
    for key, part in connection.execute(select(task_rows.c.key, task_rows.c.split).distinct()):
        places.setdefault(key, set()).add(part)
    for name, items in connection.execute(select(manifests.c.hash, manifests.c["items"])):
        try:
            keys = [item["row"] for item in items]
        except (KeyError, TypeError) as error:
            raise damaged_manifest(name) from error
        for key in keys:
            places.setdefault(key, set()).add("memory")
    return places


def unnamed(connection: Connection, versions: Collection[str], memories: Collection[str]) -> tuple[set[str], set[str]]:
    """Return the stored task versions and manifests other than these."""
    lost = set(connection.execute(select(tasks.c.version)).scalars()) - set(versions)
    return lost, set(connection.execute(select(manifests.c.hash)).scalars()) - set(memories)


def loose_rows(connection: Connection) -> set[str]:
    """Return the keys of rows that no task and no manifest names, without deleted rows, which stay recorded."""
    every = set(connection.execute(select(rows.c.key)).scalars())
    return every - places_of_rows(connection).keys() - deleted_rows(connection).keys()


def first_place(places: Collection[str]) -> str:
    """Return the first of the places that needs the text of a row; "loose" where none does."""
    return next((place for place in PLACES if place in places), "loose")


def parts_of(connection: Connection, version: str) -> dict[str, list[str]]:
    """Return the row keys of a task version by part, in order."""
    query = (
        select(task_rows.c.split, task_rows.c.key).where(task_rows.c.version == version).order_by(task_rows.c.position)
    )
    parts: dict[str, list[str]] = {}
    for split, key in connection.execute(query):
        parts.setdefault(split, []).append(key)
    return parts


def known_keys(connection: Connection, keys: Iterable[str]) -> set[str]:
    """Return the keys among `keys` that some row has."""
    known: set[str] = set()
    for chunk in chunks(keys):
        known.update(connection.execute(select(rows.c.key).where(rows.c.key.in_(chunk))).scalars())
    return known


def texts_of(connection: Connection, keys: Iterable[str]) -> dict[str, Row]:
    """Return the rows by key, without deleted ones."""
    texts: dict[str, Row] = {}
    for chunk in chunks(keys):
        query = select(rows.c.key, rows.c.body).where(rows.c.key.in_(chunk), rows.c.body.is_not(None))
        texts.update((key, read_row(key, body)) for key, body in connection.execute(query))
    return texts


def read_row(key: str, body: Any) -> Row:
    """Restore a row, checked against its key."""
    try:
        row = Row.from_json(body)
        sound = row_key(row) == key
    except (AttributeError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise BrokenStore(f"row {key[:12]} of the ledger is damaged; restore ledger.sqlite from a backup")
    return row


def damaged_manifest(name: str) -> BrokenStore:
    """Return the error of a manifest that differs from its hash."""
    return BrokenStore(f"memory manifest {name[:12]} is damaged in ledger.sqlite; restore it from a backup")


def chunks(keys: Iterable[str]) -> Iterable[list[str]]:
    """Return the keys, each once, in lists that fit into a query."""
    every = list(dict.fromkeys(keys))
    return (every[start : start + CHUNK] for start in range(0, len(every), CHUNK))
