"""Rows and tasks: the text a workspace keeps, each row once, and the task versions that use it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select, update

from perdure.core.errors import BadInput, NotFound
from perdure.core.rows import Row, RowName
from perdure.ledger.database import Database, row_names, rows, task_rows, tasks, version_of
from perdure.ledger.row_keys import HELD_OUT, RowPlace
from perdure.ledger.row_queries import (
    chunks,
    deleted_rows,
    insert_rows,
    name_keys,
    parts_of,
    read_row,
    same_rows,
    texts_of,
)


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
            lists = {split: insert_rows(connection, part) for split, part in parts.items() if part}
            known = connection.execute(select(tasks).where(tasks.c.version == version)).first()
            if known is None:
                connection.execute(insert(tasks).values(version=version, name=name, spec=dict(spec_json)))
                for split, keys in lists.items():
                    places = [{"version": version, "split": split, "position": i, "key": k} for i, k in enumerate(keys)]
                    connection.execute(insert(task_rows), places)
                return
            if known.name != name or parts_of(connection, version) != lists:
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
            parts = parts_of(connection, version)
            texts = texts_of(connection, {key for keys in parts.values() for key in keys})
        return found.spec, {split: [texts[key] for key in keys if key in texts] for split, keys in parts.items()}

    def settings(self, name: str, version: str) -> dict[str, Any]:
        """Return the settings that a task version was learned with, without its rows; nothing where there is no such version."""
        with self.reading() as connection:
            query = select(tasks.c.spec).where(tasks.c.version == version, tasks.c.name == name)
            found = connection.execute(query).first()
        return dict(found.spec["spec"]) if found else {}

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
            keys = parts_of(connection, version).get(split, [])
            texts = texts_of(connection, keys)
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
            keys = parts_of(connection, version).get("train", [])
            gone = deleted_rows(connection)
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
            return insert_rows(connection, batch)

    def kept_rows(self) -> list[Row]:
        """Return every row whose text is kept, of tasks, memories and neither, by task and in order of their hashes."""
        query = select(rows.c.key, rows.c.body).where(rows.c.body.is_not(None)).order_by(rows.c.hash)
        with self.reading() as connection:
            found = [read_row(key, body) for key, body in connection.execute(query)]
        return sorted(found, key=lambda row: row.task)

    def places_of(self, batch: Iterable[Row | RowName]) -> list[RowPlace]:
        """Return where a row of a task version asks what one of these asks, or has the same text; deleted rows are skipped.

        Cost: it depends on the rows given and on what is returned, not on how many rows the workspace has.
        """
        asked = {name: row for row in batch for name in (row.question, row.hash)}
        with self.reading() as connection:
            found = same_rows(connection, asked)
            places = []
            for chunk in chunks(found):
                query = select(task_rows.c.version, task_rows.c.split, task_rows.c.key).where(
                    task_rows.c.key.in_(chunk)
                )
                places += [RowPlace(version, part, *found[key]) for version, part, key in connection.execute(query)]
        return places

    def deleted(self, hashes: Iterable[str]) -> set[str]:
        """Return those of the row hashes that were deleted here, so that new data holding them can be refused."""
        found: dict[str, str] = {}
        with self.reading() as connection:
            for chunk in chunks(hashes):
                query = select(rows.c.key, rows.c.hash).where(rows.c.hash.in_(chunk), rows.c.body.is_(None))
                found.update(connection.execute(query).all())
            names = name_keys(connection, found)
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
