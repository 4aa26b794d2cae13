"""Checks that a ledger is as it was recorded, and deletion of everything that nothing refers to."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Text, null, select, type_coerce

from perdure.core.canonical import content_hash
from perdure.core.errors import BadSpec, BrokenStore
from perdure.core.files import remove_left
from perdure.core.progress import Tick
from perdure.core.records import from_store
from perdure.core.rows import Row
from perdure.core.stages import Stages
from perdure.ledger import runs
from perdure.ledger.database import (
    candidate,
    entries,
    guards,
    manifests,
    refs,
    row_names,
    rows,
    scores,
    task_rows,
    tasks,
    version_of,
)
from perdure.ledger.entry import Entry
from perdure.ledger.folder import LedgerFolder
from perdure.ledger.guards import FIRST_VERSION
from perdure.ledger.objects import ObjectStore
from perdure.ledger.records import CHECKED, CheckedGuards, Freed, Guard, Verification
from perdure.ledger.row_keys import row_key


def verify(ledger: LedgerFolder, tick: Tick | None = None) -> Verification:
    """Hash everything again, and return the problems.

    Notes, the reflog and the model's answers have no hash, so they are not checked. A score is only checked against its items.
    The settings of a task are only checked while none of its rows is deleted.

    Args:
        ledger: The ledger.
        tick: Called with (what, objects done, objects in all) once it takes longer than a second.

    Cost: reads every object once, and every row once plus once for each task version that has it.
    """
    problems, by_id = _record_problems(ledger)
    stored = ledger.objects.all()
    stages = Stages(tick=tick)
    with stages.stage("hashing", "hashing objects"):
        for done, name in enumerate(sorted(stored), 1):
            if not ledger.objects.verify(name):
                problems.append(f"object {name[:12]} is damaged")
            stages.show(done, len(stored))
    return Verification(not problems, len(by_id), len(stored), tuple(problems))


def damage(ledger: LedgerFolder) -> str | None:
    """Return the first problem of the ledger's records, None where there is none; objects are not read."""
    return next(iter(_record_problems(ledger)[0]), None)


def _record_problems(ledger: LedgerFolder) -> tuple[list[str], dict[str, Entry | None]]:
    problems: list[str] = []
    by_id: dict[str, Entry | None] = {}
    try:
        problems += ledger.check_file()
        problems += [f"table '{name}' is missing" for name in ledger.missing_tables()]
        with ledger.reading() as connection:
            by_id = _entries(connection)
            for part in (
                lambda: _column_problems(connection),
                lambda: _entry_problems(ledger, connection, by_id),
                lambda: _ref_problems(ledger, connection, by_id),
                lambda: _text_problems(connection),
                lambda: _task_problems(connection),
                lambda: _score_problems(connection),
                lambda: _guard_problems(ledger, connection, by_id),
            ):
                problems += _collected(part)
    except BrokenStore as error:
        problems.append(str(error))
    return problems, by_id


def _collected(part: Callable[[], Iterator[str]]) -> Iterator[str]:
    """Yield the problems of a part; a record of an unknown shape is a problem too."""
    try:
        yield from part()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        yield f"ledger.sqlite has a record that cannot be read ({error!r})"


def gc(ledger: LedgerFolder, abandoned: Collection[str] = ()) -> Freed:
    """Delete the objects, task versions, memories, rows and scores that no entry, no candidate, no guard and no checkup needs.

    Checkpoints of learns that began at another head are deleted too, and files that killed writers left. Objects are deleted
    first, so that a full disk has room for the rest. The caller holds the write lock: a writer stores its objects before it
    records an entry that names them.

    Args:
        ledger: The ledger.
        abandoned: Ids of entries and of discarded candidates to delete first; see `History.remove_abandoned`.

    Raises:
        Busy: Everything was deleted, but a reader uses the log, which still has the deleted text.
    """
    before = ledger.path.stat().st_size
    left_behind = ledger.remove_abandoned(abandoned) if abandoned else 0
    needed = needed_entries(ledger)
    loose = loose_objects(ledger)
    freed = sum(ledger.objects.remove(name) for name in loose) + ledger.objects.sweep()
    head = ledger.resolve("head").id
    freed += runs.sweep(ledger.root)
    for folder in (ledger.root, ledger.root.parent):
        remove_left(folder)
    left = [run for run in runs.unfinished(ledger.root) if run.parent not in (None, head)]
    freed += sum(run.remove() for run in left)
    rows = _drop_records(ledger, needed)
    if rows or left_behind:
        ledger.forget_deleted()
    elif not ledger.at_rest:
        ledger.empty_log()
    freed += max(before - ledger.path.stat().st_size, 0)
    return Freed(len(loose), rows, len(left), freed, left_behind)


def needed_entries(ledger: LedgerFolder) -> list[Entry]:
    """Return every entry, and the candidate if one waits."""
    waiting = ledger.candidate()
    return [*ledger.entries(), *([waiting] if waiting else [])]


def loose_objects(ledger: LedgerFolder) -> set[str]:
    """Return the objects that no entry, no candidate and no guard needs."""
    return ledger.objects.all() - needed_objects(ledger.objects, needed_entries(ledger), ledger.guards())


def _drop_records(ledger: LedgerFolder, needed: list[Entry]) -> int:
    """Delete the records that none of these entries needs; an unfinished learn needs the scores that it measured so far."""
    hung = [*ledger.guards(), *_checked(ledger, needed)]
    versions = {version for entry in needed for version in entry.tasks.values()} | {guard.version for guard in hung}
    dropped = ledger.drop_unnamed(versions, {entry.memory for entry in needed if entry.memory})
    if not runs.unfinished(ledger.root):
        every: set[str | None] = {name for entry in needed for name in entry.tasks}
        every |= {None} if hung else set()  # guards have the view of requests without a task
        dropped += ledger.drop_scores(
            {seen for one in needed for seen in ledger.seen_by(one, every).values()},
            versions | {guard.score_version for guard in hung},
        )
    return dropped


def _checked(ledger: LedgerFolder, needed: Iterable[Entry]) -> list[Guard]:
    """Return the guards that checkups of these entries measured."""
    notes, names = ledger.notes_with(CHECKED), {entry.id for entry in needed}
    return [
        guard
        for name, value in notes.items()
        if name in names
        for guard in from_store(CheckedGuards, value, f"note '{CHECKED}' of entry {name[:12]}").guards
    ]


def named_objects(objects: ObjectStore, needed: Iterable[Entry]) -> set[str]:
    """Return the objects that entries name, and the parts of these objects."""
    return {part for entry in needed for name in entry.objects for part in (name, *objects.parts(name))}


def needed_objects(objects: ObjectStore, entries: Iterable[Entry], hung: Iterable[Guard]) -> set[str]:
    """Return the objects that entries and guards name, and the parts of these objects."""
    columns = {guard.columns for guard in hung if guard.columns}
    return named_objects(objects, entries) | {part for name in columns for part in (name, *objects.parts(name))}


def _entries(connection: Connection) -> dict[str, Entry | None]:
    """Return the entries and the candidate as they are on disk, by recorded id; None for one that cannot be read."""
    stored: dict[str, Entry | None] = {}
    for table in (entries, candidate):
        for name, text in connection.execute(select(table.c.id, type_coerce(table.c.body, Text))):
            try:
                stored[name] = Entry.from_json(json.loads(text))
            except (TypeError, ValueError):
                stored[name] = None
    return stored


def _column_problems(connection: Connection) -> Iterator[str]:
    """Compare the columns of each entry with its body."""
    columns = (entries.c.id, entries.c.parent, entries.c.kind, entries.c.task, entries.c.body)
    for name, parent, kind, task, body in connection.execute(select(*columns)):
        if (parent, kind, task) != (body["parent"], body["kind"], body["task"]):
            yield f"entry {name[:12]} is not what was recorded: its parent, kind or task differ from its body"


def _entry_problems(ledger: LedgerFolder, connection: Connection, by_id: dict[str, Entry | None]) -> Iterator[str]:
    versions = {(name, version) for version, name in connection.execute(select(tasks.c.version, tasks.c.name))}
    memories = set(connection.execute(select(manifests.c.hash)).scalars())
    stored = ledger.objects.all()
    for name, entry in by_id.items():
        where = f"entry {name[:12]}"
        if entry is None or entry.id != name:
            yield f"{where} is not what was recorded"
            continue
        if entry.parent is not None and entry.parent not in by_id:
            yield f"{where}: parent {entry.parent[:12]} is missing"
        if entry.memory is not None and entry.memory not in memories:
            yield f"{where}: memory manifest {entry.memory[:12]} is missing"
        yield from (
            f"{where}: object {o[:12]} is missing" for o in sorted(named_objects(ledger.objects, [entry]) - stored)
        )
        yield from (
            f"{where}: version {v[:12]} of task '{t}' is missing"
            for t, v in entry.tasks.items()
            if (t, v) not in versions
        )


def _ref_problems(ledger: LedgerFolder, connection: Connection, by_id: dict[str, Entry | None]) -> Iterator[str]:
    targets = {row.name: row.entry for row in connection.execute(select(refs))}
    yield from (f"ref '{ref}' is missing" for ref in ("base", "head") if ref not in targets)
    yield from (
        f"ref '{ref}' names {target[:12]}, which is no entry" for ref, target in targets.items() if target not in by_id
    )
    base = by_id.get(targets.get("base", ""))
    if base is not None and base.base != ledger.config["base"]:
        yield f"perdure.json names base model {ledger.config['base'][:12]}, the base entry {base.base[:12]}"


def _text_problems(connection: Connection) -> Iterator[str]:
    """Hash the rows and the manifests again, and report rows that are named but missing."""
    known = set()
    for key, row_hash, body in connection.execute(select(rows)):
        known.add(key)
        if body is not None and not _is_row(key, row_hash, body):
            yield f"row {row_hash[:12]} is not what was recorded"
    for name, items in connection.execute(select(manifests)):
        if content_hash(items) != name:
            yield f"memory manifest {name[:12]} is not what was recorded"
        elif missing := {item["row"] for item in items} - known:
            yield f"memory manifest {name[:12]} names {len(missing)} rows that are missing"
    named = connection.execute(select(task_rows.c.version, task_rows.c.key))
    lost = {version for version, key in named if key not in known}
    yield from (f"task version {version[:12]} names rows that are missing" for version in sorted(lost))


def _is_row(key: str, row_hash: str, body: Any) -> bool:
    try:
        row = Row.from_json(body)
        return row_key(row) == key and row.hash == row_hash
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _task_problems(connection: Connection) -> Iterator[str]:
    for version, name, spec in connection.execute(select(tasks.c.version, tasks.c.name, tasks.c.spec)):
        try:
            sound = _is_version(connection, version, name, spec)
        except (BadSpec, KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            yield f"version {version[:12]} of task '{name}' is not what was recorded"


def _is_version(connection: Connection, version: str, name: str, spec: dict[str, Any]) -> bool:
    """Recompute a task's fingerprint from its row hashes, which outlive the text, and its version if all labels are known."""
    from perdure.data.task import TaskData, version_hash

    label = null() if version_of(connection) < 2 else row_names.c.label
    query = select(task_rows.c.split, rows.c.key, rows.c.hash, rows.c.body, label.label("name_label"))
    query = query.join(rows, rows.c.key == task_rows.c.key)
    if version_of(connection) >= 2:
        query = query.outerjoin(row_names, row_names.c.key == rows.c.key)
    parts: dict[str, list[tuple[str, str | None]]] = {"train": [], "validation": [], "test": []}
    whole, test = True, []
    for line in connection.execute(query.where(task_rows.c.version == version).order_by(task_rows.c.position)):
        row = None if line.body is None else Row.from_json(line.body)
        row_label = line.name_label if row is None else row.label
        parts[line.split].append((line.hash, row_label))
        test += [row] if row is not None and line.split == "test" else []
        whole &= row is not None or content_hash([line.hash, row_label, name]) == line.key
    fingerprint = content_hash([row_hash for row_hash, _ in parts["train"]])
    task = TaskData.from_json({**spec, "version": version}, test=test)
    computed = version_hash(task, parts) if whole else version
    return (task.name, computed, spec["fingerprint"], spec["version"]) == (
        name,
        version,
        fingerprint,
        version,
    )


def _score_problems(connection: Connection) -> Iterator[str]:
    for state, version, record in connection.execute(select(scores.c.state, scores.c.version, scores.c.record)):
        items = record.get("items") or [math.nan]
        mean = math.fsum(items) / len(items)
        if record.get("n") != len(items) or not math.isclose(record.get("score", math.nan), mean):
            yield f"the score of state {state[:12]} on task version {version[:12]} is not the mean of its items"


def _guard_problems(ledger: LedgerFolder, connection: Connection, by_id: dict[str, Entry | None]) -> Iterator[str]:
    """Report guards whose task version, object or reference is missing."""
    if version_of(connection) < FIRST_VERSION:
        return
    versions = {(name, version) for version, name in connection.execute(select(tasks.c.version, tasks.c.name))}
    stored = ledger.objects.all()
    for name, version, record in connection.execute(select(guards.c.name, guards.c.version, guards.c.record)):
        where = f"guard '{name}'"
        if (record.get("name"), record.get("version")) != (name, version):
            yield f"{where} is not what was recorded"
            continue
        if (name, version) not in versions:
            yield f"{where}: version {version[:12]} is missing"
        if record["reference"] not in by_id:
            yield f"{where}: its reference {record['reference'][:12]} is no entry"
        if record["columns"] is not None and record["columns"] not in stored:
            yield f"{where}: object {record['columns'][:12]} is missing"
