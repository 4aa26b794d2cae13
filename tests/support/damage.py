"""A workspace whose records are damaged one at a time: rows deleted, cells emptied or of another type, files cut short."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]  # changes a copy of the workspace

TEXTS = ["", "f00", None, 7, b"\xff\xfe", "../../etc"]
BODIES = ["null", "{}", "[]", '"text"', "7", "[[]]", "{", b"\xff\xfe", "NaN"]
VALUES: list[Any] = [None, 7, "text", [], {}, [None], True, -1, 1e400]
JSON_COLUMNS = {
    "entries": ["body"],
    "candidate": ["body", "notes"],
    "notes": ["value"],
    "rows": ["body"],
    "tasks": ["spec"],
    "manifests": ["items"],
    "scores": ["record"],
}


def damages(root: Path, seed: int) -> Iterator[tuple[str, Damage]]:
    """Yield every kind of damage by name, at places drawn by the seed."""
    draw = random.Random(seed)
    for table, columns, rowids in _tables(root):
        yield f"{table}: all rows deleted", _sql(f"DELETE FROM {table}")
        yield f"{table}: dropped", _sql(f"DROP TABLE {table}")
        rowid = draw.choice(rowids)
        yield f"{table}: row {rowid} deleted", _sql(f"DELETE FROM {table} WHERE rowid = {rowid}")
        for column in columns:
            json_column = column in JSON_COLUMNS.get(table, ())
            value, rowid = draw.choice(BODIES if json_column else TEXTS), draw.choice(rowids)
            yield f"{table}.{column} of row {rowid} is {value!r}", _put(table, column, rowid, value)
            if json_column:
                yield from _within(root, table, column, draw)
    for path in sorted(path.relative_to(root) for path in root.glob("objects/*/*")):
        yield f"{path} deleted", lambda copy, path=path: (copy / path).unlink()
        yield f"{path} cut", lambda copy, path=path: _cut(copy / path, draw.randrange(40))
    yield from _config_damages(root, draw)


def _tables(root: Path) -> Iterator[tuple[str, list[str], list[int]]]:
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in names:
            columns = [column for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")]
            rowids = [number for (number,) in connection.execute(f"SELECT rowid FROM {table}")]
            if rowids:
                yield table, columns, rowids
    connection.close()


def _within(root: Path, table: str, column: str, draw: random.Random) -> Iterator[tuple[str, Damage]]:
    """Yield damages inside the JSON of a cell: for each shape of it, one field gone and one field of another type."""
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        cells = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
    connection.close()
    shapes = {_shape(json.loads(text)): (rowid, text) for rowid, text in draw.sample(cells, len(cells))}
    for rowid, text in shapes.values():
        paths = list(_paths(json.loads(text)))
        for gone in (True, False) if paths else ():
            path, value = draw.choice(paths), draw.choice(VALUES)
            changed = _changed(json.loads(text), path, gone, value)
            name = ".".join(map(str, path))
            what = "gone" if gone else f"{value!r}"
            yield f"{table}.{column} of row {rowid}: {name} is {what}", _put(table, column, rowid, json.dumps(changed))


def _shape(value: Any) -> str:
    """Return the names of the fields of a value and of what is directly in it."""
    if isinstance(value, dict):
        return str({key: sorted(inner) if isinstance(inner, dict) else "" for key, inner in sorted(value.items())})
    return _shape(value[0]) if isinstance(value, list) and value else type(value).__name__


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, found in inner:
        yield (*at, key)
        yield from _paths(found, (*at, key))


def _changed(value: Any, path: tuple[Any, ...], gone: bool, new: Any) -> Any:
    place = value
    for key in path[:-1]:
        place = place[key]
    if gone:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return value


def _config_damages(root: Path, draw: random.Random) -> Iterator[tuple[str, Damage]]:
    config = json.loads((root / "perdure.json").read_text())
    for text in ("", "{", "[]", "null", "[" * 5000):
        yield f"perdure.json is {text[:9]!r}", lambda copy, text=text: _write(copy, text)
    for path in _paths(config):
        value = draw.choice(VALUES)
        for gone in (True, False):
            text = json.dumps(_changed(json.loads(json.dumps(config)), path, gone, value))
            name = ".".join(map(str, path))
            yield (
                f"perdure.json: {name} is {'gone' if gone else repr(value)}",
                lambda copy, text=text: _write(copy, text),
            )


def _write(root: Path, text: str) -> None:
    (root / "perdure.json").write_text(text)


def _sql(statement: str, *values: Any) -> Damage:
    def damage(root: Path) -> None:
        with suppress(sqlite3.IntegrityError), sqlite3.connect(root / "ledger.sqlite") as connection:
            connection.execute(statement, values)  # what the schema refuses, no program could have written either
        connection.close()

    return damage


def _put(table: str, column: str, rowid: int, value: Any) -> Damage:
    return _sql(f"UPDATE {table} SET {column} = ? WHERE rowid = {rowid}", value)


def _cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
