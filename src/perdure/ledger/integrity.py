"""Checking that a ledger is what was recorded, and freeing what nothing names."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Text, select, type_coerce

from perdure.core.canonical import content_hash
from perdure.core.errors import BrokenStore
from perdure.core.rows import Row
from perdure.ledger.database import candidate, entries, manifests, refs, rows, task_rows, tasks
from perdure.ledger.entry import Entry
from perdure.ledger.rows import row_key

if TYPE_CHECKING:
    from perdure.ledger.store import Ledger


def verify(ledger: "Ledger") -> dict[str, Any]:
    """Hash everything again, and return ok, entries and objects (how many were checked), and problems in words.

    Cost: reads every object and every row once.
    """
    problems = ledger.check_file()
    found: dict[str, Entry | None] = {}
    try:
        with ledger.reading() as connection:
            found = _entries(connection)
            problems += _entry_problems(ledger, connection, found)
            problems += _ref_problems(ledger, connection, found)
            problems += _text_problems(connection)
    except BrokenStore as error:
        problems.append(str(error))
    stored = ledger.objects.all()
    problems += [f"object {name[:12]} is damaged" for name in sorted(stored) if not ledger.objects.verify(name)]
    return {"ok": not problems, "entries": len(found), "objects": len(stored), "problems": problems}


def gc(ledger: "Ledger") -> dict[str, int]:
    """Delete the objects that no entry and no candidate names; return how many, and the bytes freed.

    Only for who holds the write lock: a writer puts its objects before it names them.
    """
    held = ledger.candidate()
    named = {name for entry in [*ledger.entries(), *([held] if held else [])] for name in entry.objects}
    loose = ledger.objects.all() - named
    freed = sum(ledger.objects.remove(name) for name in loose) + ledger.objects.sweep()
    return {"removed": len(loose), "bytes": freed}


def _entries(connection: Connection) -> dict[str, Entry | None]:
    """Return the entries and the candidate as they stand on disk, by recorded id; None where one cannot be read."""
    found: dict[str, Entry | None] = {}
    for table in (entries, candidate):
        for name, text in connection.execute(select(table.c.id, type_coerce(table.c.body, Text))):
            try:
                found[name] = Entry.from_json(json.loads(text))
            except (TypeError, ValueError):
                found[name] = None
    return found


def _entry_problems(ledger: "Ledger", connection: Connection, found: dict[str, Entry | None]) -> Iterator[str]:
    kept = {(name, version) for version, name in connection.execute(select(tasks.c.version, tasks.c.name))}
    memories = set(connection.execute(select(manifests.c.hash)).scalars())
    stored = ledger.objects.all()
    for name, entry in found.items():
        where = f"entry {name[:12]}"
        if entry is None or entry.id != name:
            yield f"{where} is not what was recorded"
            continue
        if entry.parent is not None and entry.parent not in found:
            yield f"{where}: parent {entry.parent[:12]} is missing"
        if entry.memory is not None and entry.memory not in memories:
            yield f"{where}: memory manifest {entry.memory[:12]} is missing"
        yield from (f"{where}: object {o[:12]} is missing" for o in sorted(entry.objects - stored))
        yield from (
            f"{where}: version {v[:12]} of task '{t}' is missing" for t, v in entry.tasks.items() if (t, v) not in kept
        )


def _ref_problems(ledger: "Ledger", connection: Connection, found: dict[str, Entry | None]) -> Iterator[str]:
    targets = {row.name: row.entry for row in connection.execute(select(refs))}
    yield from (f"ref '{ref}' is missing" for ref in ("base", "head") if ref not in targets)
    yield from (
        f"ref '{ref}' names {target[:12]}, which is no entry" for ref, target in targets.items() if target not in found
    )
    base = found.get(targets.get("base", ""))
    if base is not None and base.base != ledger.config["base"]:
        yield f"perdure.json names base model {ledger.config['base'][:12]}, the base entry {base.base[:12]}"


def _text_problems(connection: Connection) -> Iterator[str]:
    """Hash the rows and the manifests again, and look for rows that are named but not there."""
    known = set()
    for key, row_hash, body in connection.execute(select(rows)):
        known.add(key)
        row = None if body is None else Row.from_json(body)
        if row is not None and (row_key(row) != key or row.hash != row_hash):
            yield f"row {row_hash[:12]} is not what was recorded"
    for name, items in connection.execute(select(manifests)):
        if content_hash(items) != name:
            yield f"memory manifest {name[:12]} is not what was recorded"
        elif missing := {item["row"] for item in items} - known:
            yield f"memory manifest {name[:12]} names {len(missing)} rows that are missing"
    named = connection.execute(select(task_rows.c.version, task_rows.c.key))
    lost = {version for version, key in named if key not in known}
    yield from (f"task version {version[:12]} names rows that are missing" for version in sorted(lost))
