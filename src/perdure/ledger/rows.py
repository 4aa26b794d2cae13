"""Rows, tasks and manifests: the text a workspace keeps, each row once, and the lists that use it."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, LargeBinary, delete, func, insert, select, type_coerce, update

from perdure.core.canonical import canonical_json, content_hash
from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.core.rows import Row, RowName
from perdure.ledger.database import (
    Database,
    manifests,
    questions,
    row_names,
    rows,
    task_rows,
    tasks,
    version_of,
)

HELD_OUT = ("test", "validation")  # every other part of a task is trained on
PLACES = ("memory", "test", "train", "validation")  # of a row, the first that needs its text first
CHUNK = 10_000  # keys in one query; SQLite takes 32766 parameters


def row_key(row: Row) -> str:
    """Return the key under which a row's text is kept: its hash with its label and task."""
    return content_hash([row.hash, row.label, row.task])


def row_name(row: Row, part: str, *, label: bool) -> RowName:
    """Return what is kept of a row whose text is not.

    Args:
        row: The row.
        part: Part of the task that it is in.
        label: Keep its label too. A label that stands beside an answer is text like any other.
    """
    return RowName(row_key(row), row.hash, row.question, row.label if label else None, row.source, part)


@dataclass(frozen=True)
class RowPlace:
    """A row of a task version.

    Args:
        version: The task version.
        part: Part of it that the row is in: "train", "validation" or "test".
        hash: The row's `hash`.
        question: The row's `question`.
    """

    version: str
    part: str
    hash: str
    question: str


class Shelf(Database):
    """The rows of a workspace, with their text or by name. A deleted row is skipped by everything that reads."""

    def put_task(
        self, name: str, version: str, spec_json: Mapping[str, Any], parts: Mapping[str, Sequence[Row | RowName]]
    ) -> None:
        """Keep a task version: what the task file said, and its rows by part (train, test, validation).

        Keeping the same again changes nothing: what the version does not cover, such as the paths in `spec_json`, stays
        as it was the first time. The text of a row deleted earlier does not come back; that of a row kept by name does.

        Raises:
            BadInput: The version is kept already with another name or other rows.
        """
        with self.changing() as connection:
            lists = {split: _put_rows(connection, part) for split, part in parts.items() if part}
            known = connection.execute(select(tasks).where(tasks.c.version == version)).first()
            if known is None:
                connection.execute(insert(tasks).values(version=version, name=name, spec=dict(spec_json)))
                for split, keys in lists.items():
                    places = [{"version": version, "split": split, "position": i, "key": k} for i, k in enumerate(keys)]
                    connection.execute(insert(task_rows), places)
                return
            if known.name != name or _parts(connection, version) != lists:
                raise BadInput(
                    f"version {version[:12]} of task '{name}' is kept already with other content "
                    f"(as '{known.name}'); give changed data a new version"
                )

    def task(self, name: str, version: str) -> tuple[dict[str, Any], dict[str, list[Row]]]:
        """Return spec and rows by part of a task version: those whose text is kept; `row_names` returns the others.

        Raises:
            NotFound: There is no such version of this task.
        """
        with self.reading() as connection:
            query = select(tasks.c.spec).where(tasks.c.version == version, tasks.c.name == name)
            found = connection.execute(query).first()
            if found is None:
                raise NotFound(
                    f"no version {version[:12]} of task '{name}' in {self.path}; 'perdure log' lists the tasks"
                )
            parts = _parts(connection, version)
            texts = _texts(connection, {key for keys in parts.values() for key in keys})
        return found.spec, {split: [texts[key] for key in keys if key in texts] for split, keys in parts.items()}

    def row_names(self, version: str) -> list[RowName]:
        """Return the rows of a task version that are kept by name, without their text, in order."""
        with self.reading() as connection:
            if version_of(connection) < 2:
                return []
            query = (
                select(task_rows.c.split, rows.c.key, rows.c.hash, row_names)
                .join(rows, rows.c.key == task_rows.c.key)
                .join(row_names, row_names.c.key == task_rows.c.key)
                .where(task_rows.c.version == version, rows.c.body.is_(None))
                .order_by(task_rows.c.position)
            )
            return [
                RowName(found.key, found.hash, found.question, found.label, found.source, found.split)
                for found in connection.execute(query)
            ]

    def task_rows(self, version: str, split: str) -> list[Row]:
        """Return the rows of one part of a task version in their order; empty if it has no such part."""
        with self.reading() as connection:
            keys = _parts(connection, version).get(split, [])
            texts = _texts(connection, keys)
        return [texts[key] for key in keys if key in texts]

    def train_hashes(self, version: str) -> set[str]:
        """Return the hashes of the rows a task version trains on, deleted ones included."""
        query = (
            select(rows.c.hash)
            .join(task_rows, task_rows.c.key == rows.c.key)
            .where(task_rows.c.version == version, task_rows.c.split.not_in(HELD_OUT))
        )
        with self.reading() as connection:
            return set(connection.execute(query).scalars())

    def train_keys(self, version: str) -> list[str]:
        """Return the keys of the rows a task version trains on, in order, without deleted ones."""
        with self.reading() as connection:
            keys = _parts(connection, version).get("train", [])
            gone = _deleted(connection)
        return [key for key in keys if key not in gone]

    def row_hashes(self, version: str) -> set[str]:
        """Return the hashes of all rows of a task version, of whatever part, deleted ones included."""
        query = select(rows.c.hash).join(task_rows, task_rows.c.key == rows.c.key).where(task_rows.c.version == version)
        with self.reading() as connection:
            return set(connection.execute(query).scalars())

    def put_spec(self, version: str, spec_json: Mapping[str, Any]) -> None:
        """Write what is kept of a task version beside its rows anew, for what the version does not cover."""
        with self.changing() as connection:
            connection.execute(update(tasks).where(tasks.c.version == version).values(spec=dict(spec_json)))

    def put_rows(self, batch: Iterable[Row]) -> list[str]:
        """Keep rows that belong to no task part (a manifest may name them), and return their keys."""
        with self.changing() as connection:
            return _put_rows(connection, batch)

    def kept_rows(self) -> list[Row]:
        """Return every row whose text is kept, of tasks, memories and neither, by task and in order of their hashes."""
        query = select(rows.c.key, rows.c.body).where(rows.c.body.is_not(None)).order_by(rows.c.hash)
        with self.reading() as connection:
            found = [_read_row(key, body) for key, body in connection.execute(query)]
        return sorted(found, key=lambda row: row.task)

    def places_of(self, batch: Iterable[Row | RowName]) -> list[RowPlace]:
        """Return where a row of a task version asks what one of these asks, or has the same text; deleted rows are skipped.

        Cost: it depends on the rows given and on what is returned, not on how many rows the workspace has.
        """
        asked = {name: row for row in batch for name in (row.question, row.hash)}
        with self.reading() as connection:
            found = _same_rows(connection, asked)
            places = []
            for chunk in _chunks(found):
                query = select(task_rows.c.version, task_rows.c.split, task_rows.c.key).where(
                    task_rows.c.key.in_(chunk)
                )
                places += [RowPlace(version, part, *found[key]) for version, part, key in connection.execute(query)]
        return places

    def deleted(self, hashes: Iterable[str]) -> set[str]:
        """Return those of the row hashes that were deleted here, so that new data holding them can be refused."""
        found: dict[str, str] = {}
        with self.reading() as connection:
            for chunk in _chunks(hashes):
                query = select(rows.c.key, rows.c.hash).where(rows.c.hash.in_(chunk), rows.c.body.is_(None))
                found.update(connection.execute(query).all())
            names = _name_keys(connection, found)
        return {row_hash for key, row_hash in found.items() if key not in names}

    def row_hash(self, beginning: str) -> str:
        """Return the full hash of the one kept row whose hash begins like this (4 digits at least).

        Raises:
            NotFound: No row does.
            BadInput: Several do.
        """
        query = select(rows.c.hash).where(rows.c.hash.startswith(beginning, autoescape=True)).distinct().limit(2)
        with self.reading() as connection:
            found = list(connection.execute(query).scalars()) if len(beginning) >= 4 else []
        if not found:
            raise NotFound(f"no row {beginning[:12]} in {self.path}; 'perdure memory list --all' shows the rows")
        if len(found) > 1:
            raise BadInput(f"several rows begin with {beginning}; give more digits of the hash")
        return found[0]

    def put_manifest(self, items: Sequence[Mapping[str, Any]]) -> str:
        """Keep a memory manifest and return its hash.

        Args:
            items: One JSON object per remembered row, in order: "row" is a key from `row_key`, the rest is free.

        Raises:
            BadInput: An item names no row, or one whose text is not kept.
        """
        content = json.loads(canonical_json([dict(item) for item in items]))
        name = content_hash(content)
        keys = {item.get("row") for item in content}
        with self.changing() as connection:
            unknown = keys - _known_keys(connection, keys)
            if unknown:
                raise BadInput(
                    f"a manifest names rows that are not kept, such as {min(map(str, unknown))}; put the task first"
                )
            if connection.execute(select(manifests.c.hash).where(manifests.c.hash == name)).first() is None:
                connection.execute(insert(manifests).values(hash=name, items=content))
        return name

    def manifest(self, name: str) -> list[dict[str, Any]]:
        """Return the items of a manifest whose rows were not deleted; see `manifest_rows`."""
        return [item for item, _ in self.manifest_rows(name)]

    def manifest_rows(self, name: str) -> list[tuple[dict[str, Any], Row]]:
        """Return the items of a manifest with their rows, in order, without those deleted since.

        Raises:
            NotFound: There is no such manifest.
        """
        with self.reading() as connection:
            items = self._items(connection, name)
            texts = _texts(connection, (item["row"] for item in items))
        return [(item, texts[item["row"]]) for item in items if item["row"] in texts]

    def manifest_keys(self, name: str) -> list[str]:
        """Return the row keys of a manifest as recorded, deleted ones included: what tensor columns are aligned with.

        Raises:
            NotFound: There is no such manifest.
        """
        with self.reading() as connection:
            return [item["row"] for item in self._items(connection, name)]

    def kept_where(self) -> dict[str, int]:
        """Return how many rows are kept, each counted once, at its first place of these.

        "memory" and "test": rows with text, named by a memory manifest, or by a test part. "train" and "validation": the other
        rows with text, by part. "loose": rows with text that no task and no manifest names. "names": rows kept by name.
        "deleted": rows that were deleted. "text_bytes": the bytes of all that text.
        """
        with self.reading() as connection:
            places = _places(connection)
            bodies = select(rows.c.key, func.length(type_coerce(rows.c.body, LargeBinary))).where(
                rows.c.body.is_not(None)
            )
            texts = {key: size for key, size in connection.execute(bodies)}
            names = _name_keys(connection)
            gone = len(_deleted(connection))
        counts = Counter(_first_place(places.get(key, ())) for key in texts)
        found = {place: counts[place] for place in (*PLACES, "loose")}
        return {**found, "names": len(names - texts.keys()), "deleted": gone, "text_bytes": sum(texts.values())}

    def drop_texts(self, keep: Collection[str], labelled: Collection[str]) -> dict[str, int]:
        """Keep by name alone every train and validation row that neither a memory nor a test part needs.

        Args:
            keep: Names of tasks that keep the text of all their rows.
            labelled: Names of tasks whose labels are their answers, and stay.

        Returns:
            "rows", how many lost their text, and the "bytes" of it.

        Raises:
            Busy: All that is done, but a reader holds the log, where the text still stands; calling this again is enough.
        """
        dropped = size = 0
        with self.changing() as connection:
            places = _places(connection)
            query = select(rows.c.key, rows.c.body).where(rows.c.body.is_not(None))
            for key, body in connection.execute(query).all():
                row = _read_row(key, body)
                if _first_place(places.get(key, ())) not in ("train", "validation") or row.task in keep:
                    continue
                dropped, size = dropped + 1, size + len(canonical_json(body).encode())
                _name(connection, row_name(row, "train", label=row.task in labelled))
        self.forget_deleted()
        return {"rows": dropped, "bytes": size}

    def drop_unnamed(self, versions: Collection[str], memories: Collection[str]) -> int:
        """Delete every task version and memory manifest but these, and the rows that nothing names then.

        A learn that was stopped or discarded leaves some. The caller calls `forget_deleted` when this returns more than 0.

        Args:
            versions: The task versions that stay.
            memories: The manifests that stay.

        Returns:
            How many versions, manifests and rows were deleted.
        """
        with self.reading() as connection:  # a full disk can be read
            if not any(_unnamed(connection, versions, memories)) and not _loose(connection):
                return 0
        with self.changing() as connection:
            lost, forgotten = _unnamed(connection, versions, memories)
            for version in lost:
                connection.execute(delete(tasks).where(tasks.c.version == version))
                connection.execute(delete(task_rows).where(task_rows.c.version == version))
            for name in forgotten:
                connection.execute(delete(manifests).where(manifests.c.hash == name))
            loose = _loose(connection)
            for chunk in _chunks(loose):
                connection.execute(delete(rows).where(rows.c.key.in_(chunk)))
                connection.execute(delete(row_names).where(row_names.c.key.in_(chunk)))
                connection.execute(delete(questions).where(questions.c.key.in_(chunk)))
        return len(lost) + len(forgotten) + len(loose)

    def _items(self, connection: Connection, name: str) -> list[dict[str, Any]]:
        items = connection.execute(select(manifests.c["items"]).where(manifests.c.hash == name)).scalar()
        if items is None:
            raise NotFound(f"no memory manifest {name[:12]} in {self.path}; 'perdure verify' says what is missing")
        if content_hash(items) != name:
            raise _damaged_manifest(name)
        return items

    def _blank(self, row_hash: str) -> tuple[list[str], int]:
        """Erase the text of every row with this hash; return the keys of these rows, and how many were not erased before.

        Raises:
            NotFound: No row has this hash.
            Busy: The text is erased, but a reader holds the log, where it still stands; calling this again is enough.
        """
        with self.changing() as connection:
            keys = list(connection.execute(select(rows.c.key).where(rows.c.hash == row_hash)).scalars())
            if not keys:
                raise NotFound(f"no row {row_hash[:12]} in {self.path}; 'perdure memory list --all' shows the rows")
            fresh = set(keys) - _deleted(connection).keys()
            connection.execute(update(rows).where(rows.c.hash == row_hash).values(body=None))
            connection.execute(delete(row_names).where(row_names.c.key.in_(keys)))
            connection.execute(delete(questions).where(questions.c.key.in_(keys)))
        self.forget_deleted()
        return keys, len(fresh)


def _put_rows(connection: Connection, batch: Iterable[Row | RowName]) -> list[str]:
    """Insert the rows that are not there yet, by name or with their text, and the text of rows there by name; return all keys."""
    keyed = [(row.key if isinstance(row, RowName) else row_key(row), row) for row in batch]
    missing = dict(keyed)
    known = _known_keys(connection, missing)
    if fresh := {key: row for key, row in missing.items() if key not in known}:
        values = [{"key": key, "hash": row.hash, "body": _body(row)} for key, row in fresh.items()]
        connection.execute(insert(rows), values)
        connection.execute(insert(questions), [{"key": key, "question": row.question} for key, row in fresh.items()])
    if names := [_name_values(row) for row in fresh.values() if isinstance(row, RowName)]:
        connection.execute(insert(row_names), names)
    for key in _name_keys(connection, known):
        row = missing[key]
        if isinstance(row, Row):
            connection.execute(update(rows).where(rows.c.key == key).values(body=row.to_json()))
            connection.execute(delete(row_names).where(row_names.c.key == key))
    return [key for key, _ in keyed]


def _body(row: Row | RowName) -> dict[str, Any] | None:
    return row.to_json() if isinstance(row, Row) else None


def _name_values(name: RowName) -> dict[str, Any]:
    return {"key": name.key, "question": name.question, "label": name.label, "source": name.source}


def _name(connection: Connection, name: RowName) -> None:
    """Put a name in the place of a row's text."""
    connection.execute(insert(row_names), [_name_values(name)])
    connection.execute(update(rows).where(rows.c.key == name.key).values(body=None))


def _same_rows(connection: Connection, asked: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return hash and question, by key, of the rows that have one of these hashes or questions, without deleted ones."""
    if version_of(connection) < 3:  # nobody has written to the file since, so that every row has to be read once
        every = _questions_of_old(connection)
        return {key: pair for key, pair in every.items() if pair[0] in asked or pair[1] in asked}
    found: dict[str, tuple[str, str]] = {}
    joined = select(rows.c.key, rows.c.hash, questions.c.question).join(questions, questions.c.key == rows.c.key)
    for chunk in _chunks(asked):
        for column in (rows.c.hash, questions.c.question):
            found.update((key, (name, text)) for key, name, text in connection.execute(joined.where(column.in_(chunk))))
    return found


def _questions_of_old(connection: Connection) -> dict[str, tuple[str, str]]:
    """Return hash and question of every row by key, in a file of before schema version 3."""
    bodies = select(rows.c.key, rows.c.hash, rows.c.body).where(rows.c.body.is_not(None))
    found = {key: (name, _read_row(key, body).question) for key, name, body in connection.execute(bodies)}
    if version_of(connection) >= 2:
        named = select(rows.c.key, rows.c.hash, row_names.c.question).join(row_names, row_names.c.key == rows.c.key)
        found.update((key, (name, question)) for key, name, question in connection.execute(named))
    return found


def _name_keys(connection: Connection, among: Iterable[str] | None = None) -> set[str]:
    """Return the keys of the rows that are kept by name; of some rows, where some are given."""
    if version_of(connection) < 2:
        return set()
    if among is None:
        return set(connection.execute(select(row_names.c.key)).scalars())
    found: set[str] = set()
    for chunk in _chunks(among):
        found.update(connection.execute(select(row_names.c.key).where(row_names.c.key.in_(chunk))).scalars())
    return found


def _deleted(connection: Connection) -> dict[str, str]:
    """Return row hash by key of the rows that were deleted."""
    empty = connection.execute(select(rows.c.key, rows.c.hash).where(rows.c.body.is_(None))).all()
    names = _name_keys(connection)
    return {key: row_hash for key, row_hash in empty if key not in names}


def _places(connection: Connection) -> dict[str, set[str]]:
    """Return where each row is named: in the parts of tasks, and in "memory"."""
    places: dict[str, set[str]] = {}
    for key, part in connection.execute(select(task_rows.c.key, task_rows.c.split).distinct()):
        places.setdefault(key, set()).add(part)
    for name, items in connection.execute(select(manifests.c.hash, manifests.c["items"])):
        try:
            keys = [item["row"] for item in items]
        except (KeyError, TypeError) as error:
            raise _damaged_manifest(name) from error
        for key in keys:
            places.setdefault(key, set()).add("memory")
    return places


def _unnamed(connection: Connection, versions: Collection[str], memories: Collection[str]) -> tuple[set[str], set[str]]:
    """Return the task versions and the manifests that are none of these."""
    lost = set(connection.execute(select(tasks.c.version)).scalars()) - set(versions)
    return lost, set(connection.execute(select(manifests.c.hash)).scalars()) - set(memories)


def _loose(connection: Connection) -> set[str]:
    """Return the keys of rows that no task and no manifest names, without deleted ones, which stay known."""
    every = set(connection.execute(select(rows.c.key)).scalars())
    return every - _places(connection).keys() - _deleted(connection).keys()


def _first_place(places: Collection[str]) -> str:
    return next((place for place in PLACES if place in places), "loose")


def _parts(connection: Connection, version: str) -> dict[str, list[str]]:
    """Return the row keys of a task version by part, in order."""
    query = (
        select(task_rows.c.split, task_rows.c.key).where(task_rows.c.version == version).order_by(task_rows.c.position)
    )
    parts: dict[str, list[str]] = {}
    for split, key in connection.execute(query):
        parts.setdefault(split, []).append(key)
    return parts


def _known_keys(connection: Connection, keys: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for chunk in _chunks(keys):
        found.update(connection.execute(select(rows.c.key).where(rows.c.key.in_(chunk))).scalars())
    return found


def _texts(connection: Connection, keys: Iterable[str]) -> dict[str, Row]:
    """Return the rows by key, without deleted ones."""
    found: dict[str, Row] = {}
    for chunk in _chunks(keys):
        query = select(rows.c.key, rows.c.body).where(rows.c.key.in_(chunk), rows.c.body.is_not(None))
        found.update((key, _read_row(key, body)) for key, body in connection.execute(query))
    return found


def _read_row(key: str, body: Any) -> Row:
    """Restore a row, checked against its key."""
    try:
        row = Row.from_json(body)
        sound = row_key(row) == key
    except (AttributeError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise BrokenStore(f"row {key[:12]} of the ledger is damaged; restore ledger.sqlite from a backup")
    return row


def _damaged_manifest(name: str) -> BrokenStore:
    return BrokenStore(f"memory manifest {name[:12]} is damaged in ledger.sqlite; restore it from a backup")


def _chunks(keys: Iterable[str]) -> Iterable[list[str]]:
    every = list(dict.fromkeys(keys))
    return (every[start : start + CHUNK] for start in range(0, len(every), CHUNK))
