"""Rows, tasks and manifests: the text a workspace keeps, each row once, and the lists that use it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from perdure.core.canonical import canonical_json, content_hash
from perdure.core.errors import BadInput, NotFound
from perdure.core.rows import Row
from perdure.ledger.database import Database, manifests, rows, task_rows, tasks

HELD_OUT = ("test", "validation")  # every other part of a task is trained on
CHUNK = 10_000  # keys in one query; SQLite takes 32766 parameters


def row_key(row: Row) -> str:
    """Return the key under which a row's text is kept: its hash with its label and task."""
    return content_hash([row.hash, row.label, row.task])


class Shelf(Database):
    """The text of a workspace. A deleted row is skipped by everything that reads."""

    def put_task(
        self, name: str, version: str, spec_json: Mapping[str, Any], parts: Mapping[str, Sequence[Row]]
    ) -> None:
        """Keep a task version: what the task file said, and its rows by part (train, test, validation).

        Keeping the same again changes nothing: what the version does not cover, such as the paths in `spec_json`, stays
        as it was the first time. The text of a row deleted earlier does not come back.

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
        """Return spec and rows by part of a task version.

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

    def put_rows(self, batch: Iterable[Row]) -> list[str]:
        """Keep rows that belong to no task part (a manifest may name them), and return their keys."""
        with self.changing() as connection:
            return _put_rows(connection, batch)

    def kept_rows(self) -> list[Row]:
        """Return every row whose text is kept, of tasks, memories and neither, by task and in order of their hashes."""
        query = select(rows.c.body).where(rows.c.body.is_not(None)).order_by(rows.c.hash)
        with self.reading() as connection:
            found = [Row.from_json(body) for body in connection.execute(query).scalars()]
        return sorted(found, key=lambda row: row.task)

    def deleted(self, hashes: Iterable[str]) -> set[str]:
        """Return those of the row hashes that were deleted here, so that new data holding them can be refused."""
        wanted = set(hashes)
        with self.reading() as connection:
            return wanted & set(connection.execute(select(rows.c.hash).where(rows.c.body.is_(None))).scalars())

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

    def _items(self, connection: Connection, name: str) -> list[dict[str, Any]]:
        items = connection.execute(select(manifests.c["items"]).where(manifests.c.hash == name)).scalar()
        if items is None:
            raise NotFound(f"no memory manifest {name[:12]} in {self.path}; 'perdure verify' says what is missing")
        return items

    def _blank(self, row_hash: str) -> list[str]:
        """Erase the text of every row with this hash and return the keys of those rows.

        Raises:
            NotFound: No row has this hash.
            Busy: The text is erased, but a reader holds the log, where it still stands; calling this again is enough.
        """
        with self.changing() as connection:
            keys = list(connection.execute(select(rows.c.key).where(rows.c.hash == row_hash)).scalars())
            if not keys:
                raise NotFound(f"no row {row_hash[:12]} in {self.path}; 'perdure memory list --all' shows the rows")
            connection.execute(update(rows).where(rows.c.hash == row_hash).values(body=None))
        self.forget_deleted()
        return keys


def _put_rows(connection: Connection, batch: Iterable[Row]) -> list[str]:
    """Insert the rows that are not there yet; return the keys of all, in order."""
    keyed = [(row_key(row), row) for row in batch]
    missing = dict(keyed)
    for key in _known_keys(connection, missing):
        del missing[key]
    if missing:
        new = [{"key": key, "hash": row.hash, "body": row.to_json()} for key, row in missing.items()]
        connection.execute(insert(rows), new)
    return [key for key, _ in keyed]


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
        found.update((key, Row.from_json(body)) for key, body in connection.execute(query))
    return found


def _chunks(keys: Iterable[str]) -> Iterable[list[str]]:
    every = list(dict.fromkeys(keys))
    return (every[start : start + CHUNK] for start in range(0, len(every), CHUNK))
