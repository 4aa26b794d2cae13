"""Memory manifests: lists of row keys, each with memory's data about the row."""

import json
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, insert, select

from perdure.core.canonical import canonical_json, content_hash
from perdure.core.errors import BadInput, NotFound
from perdure.core.records import from_store, plain
from perdure.core.rows import Row
from perdure.ledger.database import manifests
from perdure.ledger.records import MemoryItem
from perdure.ledger.row_queries import (
    damaged_manifest,
    known_keys,
    same_rows,
    texts_of,
)
from perdure.ledger.rows import RowStore


class Manifests(RowStore):
    """The memory manifests of a workspace. Every method that reads skips deleted rows, except `manifest_keys`."""

    def put_manifest(self, items: Sequence[MemoryItem]) -> str:
        """Store a memory manifest and return its hash.

        Args:
            items: One per remembered row, in order.

        Raises:
            BadInput: An item names a row that the ledger does not have.
        """
        content = json.loads(canonical_json(plain(items)))
        name, keys = content_hash(content), {item.row for item in items}
        with self.changing() as connection:
            unknown = keys - known_keys(connection, keys)
            if unknown:
                raise BadInput(
                    f"a manifest names rows that are not in {self.path}, such as {min(unknown)}; put the task first"
                )
            if connection.execute(select(manifests.c.hash).where(manifests.c.hash == name)).first() is None:
                connection.execute(insert(manifests).values(hash=name, items=content))
        return name

    def manifest(self, name: str) -> list[MemoryItem]:
        """Return the items of a manifest whose rows were not deleted; see `manifest_rows`."""
        return [item for item, _ in self.manifest_rows(name)]

    def manifest_rows(self, name: str) -> list[tuple[MemoryItem, Row]]:
        """Return the items of a manifest with their rows, in order, without those deleted since.

        Raises:
            NotFound: There is no such manifest.
        """
        with self.reading() as connection:
            items = self._items(connection, name)
            texts = texts_of(connection, (item.row for item in items))
        return [(item, texts[item.row]) for item in items if item.row in texts]

    def manifest_keys(self, name: str) -> list[str]:
        """Return the row keys of a manifest as recorded, deleted ones included; the rows of tensor columns have this order.

        Raises:
            NotFound: There is no such manifest.
        """
        with self.reading() as connection:
            return [item.row for item in self._items(connection, name)]

    def manifest_tasks(self, name: str) -> set[str]:
        """Return the tasks of the rows of a manifest as recorded, deleted ones included.

        Raises:
            NotFound: There is no such manifest.
        """
        with self.reading() as connection:
            return {item.task for item in self._items(connection, name)}

    def remembered(self, memories: Collection[str], names: Collection[str]) -> set[str]:
        """Return those of some questions and row hashes that a row in one of the memories has; deleted rows are skipped.

        Args:
            memories: Hashes of manifests.
            names: Questions and row hashes.
        """
        if not memories or not names:
            return set()
        with self.reading() as connection:
            same = same_rows(connection, names)
            query = select(manifests.c.hash, manifests.c["items"]).where(manifests.c.hash.in_(set(memories)))
            lists = connection.execute(query).all() if same else ()
        kept = {item.row for name, items in lists for item in _read_items(name, items)}
        return {name for key in same if key in kept for name in same[key]} & set(names)

    def _items(self, connection: Connection, name: str) -> list[MemoryItem]:
        items = connection.execute(select(manifests.c["items"]).where(manifests.c.hash == name)).scalar()
        if items is None:
            raise NotFound(f"no memory manifest {name[:12]} in {self.path}; 'perdure verify' lists what is missing")
        return _read_items(name, items)


def _read_items(name: str, items: object) -> list[MemoryItem]:
    """Return the items of a manifest, checked against its hash."""
    if not isinstance(items, list) or content_hash(items) != name:
        raise damaged_manifest(name)
    return [from_store(MemoryItem, item, f"memory manifest {name[:12]}") for item in items]
