"""Counts of the rows of a workspace, and deletion of their text."""

from collections import Counter
from collections.abc import Collection

from sqlalchemy import Connection, LargeBinary, delete, func, select, type_coerce, update

from perdure.core.canonical import canonical_json
from perdure.core.errors import NotFound
from perdure.ledger.database import manifests, questions, row_names, rows, task_rows, tasks
from perdure.ledger.manifests import Manifests
from perdure.ledger.records import DroppedTexts, KeptRows
from perdure.ledger.row_keys import PLACES, row_name
from perdure.ledger.row_queries import (
    chunks,
    damaged_manifest,
    deleted_rows,
    first_place,
    loose_rows,
    name_keys,
    places_of_rows,
    read_row,
    replace_by_name,
    unnamed,
)


class RowUpkeep(Manifests):
    """Counts rows, and deletes what nothing needs."""

    def count_rows(self) -> KeptRows:
        """Return the number of rows by place."""
        with self.reading() as connection:
            places = places_of_rows(connection)
            bodies = select(rows.c.key, func.length(type_coerce(rows.c.body, LargeBinary))).where(
                rows.c.body.is_not(None)
            )
            texts = {key: size for key, size in connection.execute(bodies)}
            names = name_keys(connection)
            gone = len(deleted_rows(connection))
        counts = Counter(first_place(places.get(key, ())) for key in texts)
        return KeptRows(
            **{place: counts[place] for place in (*PLACES, "loose")},
            names=len(names - texts.keys()),
            deleted=gone,
            text_bytes=sum(texts.values()),
        )

    def drop_texts(self, keep: Collection[str], labelled: Collection[str]) -> DroppedTexts:
        """Delete the text of every train and validation row that neither a memory nor a test part needs, and keep its name.

        Args:
            keep: Names of tasks that keep the text of all their rows.
            labelled: Names of tasks whose labels are their answers; these labels are kept.

        Raises:
            Busy: The text is deleted, but a reader uses the log, which still has it; call this again.
        """
        dropped = size = 0
        with self.changing() as connection:
            places = places_of_rows(connection)
            query = select(rows.c.key, rows.c.body).where(rows.c.body.is_not(None))
            for key, body in connection.execute(query).all():
                row = read_row(key, body)
                if first_place(places.get(key, ())) not in ("train", "validation") or row.task in keep:
                    continue
                dropped, size = dropped + 1, size + len(canonical_json(body).encode())
                replace_by_name(connection, row_name(row, "train", label=row.task in labelled))
        self.forget_deleted()
        return DroppedTexts(dropped, size)

    def drop_unnamed(self, versions: Collection[str], memories: Collection[str]) -> int:
        """Delete all task versions and memory manifests except these, and the rows that nothing names then.

        A learn that was stopped or discarded leaves some. The caller calls `forget_deleted` when this returns more than 0.

        Args:
            versions: The task versions to keep.
            memories: The manifests to keep.

        Returns:
            How many versions, manifests and rows were deleted.
        """
        with (
            self.reading() as connection
        ):  # no write where there is nothing to delete, since a full disk can only be read
            if not any(unnamed(connection, versions, memories)) and not loose_rows(connection):
                return 0
        with self.changing() as connection:
            lost, forgotten = unnamed(connection, versions, memories)
            for version in lost:
                connection.execute(delete(tasks).where(tasks.c.version == version))
                connection.execute(delete(task_rows).where(task_rows.c.version == version))
            for name in forgotten:
                connection.execute(delete(manifests).where(manifests.c.hash == name))
            loose = loose_rows(connection)
            for chunk in chunks(loose):
                connection.execute(delete(rows).where(rows.c.key.in_(chunk)))
                connection.execute(delete(row_names).where(row_names.c.key.in_(chunk)))
                connection.execute(delete(questions).where(questions.c.key.in_(chunk)))
        return len(lost) + len(forgotten) + len(loose)

    def erase_task(self, task: str) -> tuple[int, bool]:
        """Erase text and name of every row of a task, in every version of it and in every memory, permanently.

        A row of another task with the same text is another row, and stays.

        Returns:
            How many rows the task has, and whether all of them had been erased before.

        Raises:
            Busy: The text is erased, but a reader uses the log, which still has it; call this again.
        """
        with self.changing() as connection:
            keys = _keys_of_task(connection, task)
            fresh = keys - deleted_rows(connection).keys()
            for chunk in chunks(sorted(fresh)):
                connection.execute(update(rows).where(rows.c.key.in_(chunk)).values(body=None))
                connection.execute(delete(row_names).where(row_names.c.key.in_(chunk)))
                connection.execute(delete(questions).where(questions.c.key.in_(chunk)))
        self.forget_deleted()
        return len(keys), not fresh

    def _blank(self, row_hash: str) -> tuple[list[str], int]:
        """Erase the text of every row with this hash; return the keys of these rows, and how many of them still had it.

        Raises:
            NotFound: No row has this hash.
            Busy: The text is erased, but a reader uses the log, which still has it; call this again.
        """
        with self.changing() as connection:
            keys = list(connection.execute(select(rows.c.key).where(rows.c.hash == row_hash)).scalars())
            if not keys:
                raise NotFound(f"no row {row_hash[:12]} in {self.path}; 'perdure memory list --all' shows the rows")
            fresh = set(keys) - deleted_rows(connection).keys()
            connection.execute(update(rows).where(rows.c.hash == row_hash).values(body=None))
            connection.execute(delete(row_names).where(row_names.c.key.in_(keys)))
            connection.execute(delete(questions).where(questions.c.key.in_(keys)))
        self.forget_deleted()
        return keys, len(fresh)


def _keys_of_task(connection: Connection, task: str) -> set[str]:
    """Return the keys of the rows of a task: those of its versions, and those that a memory names."""
    places = select(task_rows.c.key).join(tasks, tasks.c.version == task_rows.c.version).where(tasks.c.name == task)
    keys = set(connection.execute(places.distinct()).scalars())
    for name, items in connection.execute(select(manifests.c.hash, manifests.c["items"])):
        try:
            keys |= {item["row"] for item in items if item["task"] == task}
        except (KeyError, TypeError) as error:
            raise damaged_manifest(name) from error
    return keys
