"""Rows and tasks: each row is stored once, and task versions refer to it."""

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


class RowStore(Database):
    """The rows of a workspace, with or without text. Every method that reads skips deleted rows."""

    def put_task(
        self, name: str, version: str, spec_json: Mapping[str, Any], parts: Mapping[str, Sequence[Row | RowName]]
    ) -> None:
        """Store a task version: the settings of its task file, and its rows by part (train, test, validation).

        Storing the same version again changes nothing. Values that the version does not cover, such as the paths in
        `spec_json`, stay as they were the first time. The text of a deleted row is not stored again; that of a row without text
        is.

        Raises:
            BadInput: The version is stored already with another name or other rows.
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
                    f"version {version[:12]} of task '{name}' is stored already with other content "
                    f"(as '{known.name}'); give changed data a new version"
                )

    def task(self, name: str, version: str) -> tuple[dict[str, Any], dict[str, list[Row]]]:
        """Return spec and rows by part of a task version. Rows without text are left out; `row_names` returns them.

        Raises:
            NotFound: There is no such version of this task.
        """
        with self.reading() as connection:
            query = select(tasks.c.spec).where(tasks.c.version == version, tasks.c.name == name)
            task = connection.execute(query).first()
            if task is None:
                raise NotFound(
                    f"no version {version[:12]} of task '{name}' in {self.path}; 'perdure log' lists the tasks"
                )
            parts = parts_of(connection, version)
            texts = texts_of(connection, {key for keys in parts.values() for key in keys})
        return task.spec, {split: [texts[key] for key in keys if key in texts] for split, keys in parts.items()}

    def settings(self, name: str, version: str) -> dict[str, Any]:
        """Return the settings of a task version, without its rows; empty where there is no such version."""
        with self.reading() as connection:
            query = select(tasks.c.spec).where(tasks.c.version == version, tasks.c.name == name)
            task = connection.execute(query).first()
        return dict(task.spec["spec"]) if task else {}

    def row_names(self, version: str) -> list[RowName]:
        """Return the names of the rows of a task version that are kept without text, in order."""
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
                RowName(row.key, row.hash, row.question, row.label, row.source, row.split)
                for row in connection.execute(query)
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
        """Return the hashes of all rows of a task version in all parts, deleted ones included."""
        query = select(rows.c.hash).join(task_rows, task_rows.c.key == rows.c.key).where(task_rows.c.version == version)
        with self.reading() as connection:
            return set(connection.execute(query).scalars())

    def put_spec(self, version: str, spec_json: Mapping[str, Any]) -> None:
        """Replace the settings of a task version, to change values that the version does not cover."""
        with self.changing() as connection:
            connection.execute(update(tasks).where(tasks.c.version == version).values(spec=dict(spec_json)))

    def put_rows(self, batch: Iterable[Row]) -> list[str]:
        """Store rows that belong to no task part (a manifest may name them), and return their keys."""
        with self.changing() as connection:
            return insert_rows(connection, batch)

    def kept_rows(self) -> list[Row]:
        """Return every row with text, whether a task, a memory or neither names it, by task and in order of the hashes."""
        query = select(rows.c.key, rows.c.body).where(rows.c.body.is_not(None)).order_by(rows.c.hash)
        with self.reading() as connection:
            kept = [read_row(key, body) for key, body in connection.execute(query)]
        return sorted(kept, key=lambda row: row.task)

    def places_of(self, batch: Iterable[Row | RowName]) -> list[RowPlace]:
        """Return the places in task versions of rows with a question or the text of one of these; deleted rows are skipped.

        Cost: it grows with the given rows and the returned places, not with the rows of the workspace.
        """
        wanted = {name for row in batch for name in (*row.questions, row.hash)}
        with self.reading() as connection:
            same = same_rows(connection, wanted)
            places = []
            for chunk in chunks(same):
                query = select(task_rows.c.version, task_rows.c.split, task_rows.c.key).where(
                    task_rows.c.key.in_(chunk)
                )
                places += [RowPlace(version, part, *same[key]) for version, part, key in connection.execute(query)]
        return places

    def deleted(self, hashes: Iterable[str]) -> set[str]:
        """Return the row hashes among `hashes` whose rows were deleted, so that new data with them can be refused."""
        erased: dict[str, str] = {}
        with self.reading() as connection:
            for chunk in chunks(hashes):
                query = select(rows.c.key, rows.c.hash).where(rows.c.hash.in_(chunk), rows.c.body.is_(None))
                erased.update(connection.execute(query).all())
            names = name_keys(connection, erased)
        return {row_hash for key, row_hash in erased.items() if key not in names}

    def row_hash(self, beginning: str) -> str:
        """Return the full hash of the only row whose hash begins with these digits (at least 4).

        Raises:
            NotFound: No hash begins so.
            BadInput: Several hashes begin so.
        """
        query = select(rows.c.hash).where(rows.c.hash.startswith(beginning, autoescape=True)).distinct().limit(2)
        with self.reading() as connection:
            matches = list(connection.execute(query).scalars()) if len(beginning) >= 4 else []
        if not matches:
            raise NotFound(f"no row {beginning[:12]} in {self.path}; 'perdure memory list --all' shows the rows")
        if len(matches) > 1:
            raise BadInput(f"several rows begin with {beginning}; give more digits of the hash")
        return matches[0]
