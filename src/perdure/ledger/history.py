"""Entries, the refs that name them, and the one candidate that a gate may leave aside."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Connection, Row, delete, insert, select, update

from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.core.records import Record, from_store, plain
from perdure.core.slots import is_isolated, view_of, without_task
from perdure.ledger.database import (
    Database,
    candidate,
    discarded,
    entries,
    manifests,
    notes,
    now,
    reflog,
    refs,
    tasks,
    version_of,
)
from perdure.ledger.entry import Entry, state_hash
from perdure.ledger.objects import ObjectStore
from perdure.ledger.records import LogEntry, LogLine, Move

R = TypeVar("R", bound=Record)
CANDIDATE = "candidate"


class History(Database):
    """What was done. Entries are only ever added; refs move, and the reflog says from where, when and why."""

    def __init__(self, path: Path, objects: ObjectStore) -> None:
        super().__init__(path)
        self.objects = objects
        # Entries never change, so what was read once need not be read again.
        self._known: dict[str, Entry] = {}
        self._last = 0

    def entry(self, entry_id: str) -> Entry:
        """Return a recorded entry by its full id.

        Raises:
            NotFound: There is no such entry.
        """
        if entry_id not in self._known:
            self.entries()
        if entry_id not in self._known:
            raise NotFound(f"no entry {entry_id[:12]} in {self.path}; 'perdure log' lists the entries")
        return self._known[entry_id]

    def entries(self) -> list[Entry]:
        """Return all recorded entries, oldest first.

        Raises:
            BrokenStore: One was written by another version of perdure.
        """
        query = select(entries.c.number, entries.c.id, entries.c.body).where(entries.c.number > self._last)
        with self.reading() as connection:
            for number, name, body in connection.execute(query.order_by(entries.c.number)):
                self._known[name] = _read(name, body)
                self._last = number
        return list(self._known.values())

    def resolve(self, ref: str) -> Entry:
        """Return the entry that `ref` means.

        That is a ref, "candidate", an id or its beginning (4 digits at least), each with "~N" to go back N entries.

        Raises:
            NotFound: Nothing has this name, or "~N" goes back beyond the base.
            BadInput: Several entries begin like this.
        """
        name, _, steps = ref.partition("~")
        entry = self._named(name)
        if name == ref:
            return entry
        if not re.fullmatch("[0-9]*", steps):
            raise BadInput(f"'{ref}' is no ref; after ~ stands how many entries to go back, as in head~2")
        line = self.ancestors(entry)
        if int(steps or 1) >= len(line):
            before = "1 entry" if len(line) == 2 else f"{len(line) - 1} entries"
            raise NotFound(f"'{ref}' goes back too far: '{name}' has {before} before it")
        return line[int(steps or 1)]

    def ancestors(self, entry: Entry) -> list[Entry]:
        """Return the entry itself, its parent, and so on back to the base. Drafts and candidates have ancestors too."""
        line = [entry]
        while line[-1].parent is not None:
            line.append(self.entry(line[-1].parent))
        return line

    def slots(self, entry: Entry) -> dict[str, str]:
        """Return object hash by slot at an entry, slots in order: of it and its ancestors the newest writer wins."""
        found: dict[str, str | None] = {}
        for ancestor in reversed(self.ancestors(entry)):
            found.update(ancestor.slots)
        return {slot: found_hash for slot, found_hash in sorted(found.items()) if found_hash is not None}

    def state(self, entry: Entry) -> str:
        """Return the identity of the whole model state at an entry; scores of requests whose task is unknown have it as key."""
        return state_hash(entry.base, self.slots(entry))

    def view(self, entry: Entry, task: str | None = None) -> dict[str, str]:
        """Return object hash by slot of what a request for `task` goes through at an entry; see `core.slots`.

        Args:
            entry: An entry or a draft.
            task: Name of a task; None for what all tasks share.
        """
        return view_of(self.slots(entry), task)

    def seen(self, entry: Entry, task: str | None) -> str:
        """Return the identity of the model that `task` goes through at an entry; scores of the task have it as key.

        A task without slots of its own sees the shared view, which is the whole state where nothing is isolated. What is learned
        later does not change what an isolated task sees.
        """
        return self.seen_by(entry, [task])[task]

    def seen_by(self, entry: Entry, tasks: Iterable[str | None]) -> dict[str | None, str]:
        """Return `seen` of several tasks; those without slots of their own see the same."""
        slots = self.slots(entry)
        shared = state_hash(entry.base, view_of(slots))
        return {
            task: state_hash(entry.base, without_task(view_of(slots, task), task))
            if is_isolated(slots, task)
            else shared
            for task in tasks
        }

    def log(self, entry: Entry | None = None) -> list[LogLine]:
        """Return all entries, or those of one entry's line, newest first."""
        names: dict[str, list[str]] = {}
        for ref, target in self.refs().items():
            names.setdefault(target, []).append(ref)
        wanted = None if entry is None else {ancestor.id for ancestor in self.ancestors(entry)}
        with self.reading() as connection:
            times = {row.id: row.time for row in connection.execute(select(entries.c.id, entries.c.time))}
        # of entries whose ids were computed again: what stands in the columns could be anything
        return [
            LogLine(one.id, one.parent, one.kind, one.task, times[one.id], tuple(names.get(one.id, ())))
            for one in reversed(self.entries())
            if wanted is None or one.id in wanted
        ]

    def refs(self) -> dict[str, str]:
        """Return entry id by ref, in order of the names."""
        with self.reading() as connection:
            return {row.name: row.entry for row in connection.execute(select(refs).order_by(refs.c.name))}

    def reflog(self, ref: str = "head") -> list[Move]:
        """Return the moves of a ref, newest first."""
        query = select(reflog.c.time, reflog.c.old, reflog.c.new, reflog.c.why).where(reflog.c.ref == ref)
        with self.reading() as connection:
            return [Move(*row) for row in connection.execute(query.order_by(reflog.c.number.desc()))]

    def record(self, entry: Entry, notes: Mapping[str, object], ref: str = "head", why: str = "learn") -> Entry:
        """Record an entry whose objects are stored, with its notes, and move `ref` to it: all three or nothing.

        Recording an entry again keeps the first notes, and leaves a ref alone that stands at it or went on from it.

        Raises:
            BadInput: Its parent, base, memory manifest or a task version does not fit this ledger.
            BrokenStore: One of its objects is missing.
        """
        with self.changing() as connection:
            self._check(connection, entry)
            is_new = self._insert(connection, entry, notes)
            if is_new or not self._contains(connection, ref, entry.id):
                self._point(connection, ref, entry.id, why)
        return entry

    def move(self, ref: str, entry_id: str, why: str) -> None:
        """Point a ref at a recorded entry; a ref that does not exist is made.

        Raises:
            NotFound: There is no such entry.
            BadInput: The ref is "base", or its name could be taken for something else.
        """
        self.entry(entry_id)
        if (
            ref in ("base", CANDIDATE)
            or not re.fullmatch(r"[A-Za-z_][\w./-]*", ref)
            or re.fullmatch("[0-9a-f]{4,}", ref)
        ):
            raise BadInput(
                f"'{ref}' cannot be moved to an entry; take a name that is no id, not 'base' and not '{CANDIDATE}'"
            )
        with self.changing() as connection:
            self._point(connection, ref, entry_id, why)

    def notes(self, entry_id: str) -> dict[str, Any]:
        """Return what stands beside an entry or the candidate: durations, versions, the learn record."""
        with self.reading() as connection:
            held = connection.execute(select(candidate).where(candidate.c.id == entry_id)).first()
            found = connection.execute(select(notes.c.key, notes.c.value).where(notes.c.entry == entry_id)).all()
        return {**(_beside(held) if held else {}), **{row.key: row.value for row in found}}

    def note(self, entry_id: str, key: str, kind: type[R]) -> R | None:
        """Return one note beside an entry or the candidate; None where it has none.

        Args:
            entry_id: Id of the entry.
            key: Name of the note.
            kind: The type of record that it holds.

        Raises:
            BrokenStore: The note is not such a record.
        """
        value = self.notes(entry_id).get(key)
        return None if value is None else from_store(kind, value, f"note '{key}' of entry {entry_id[:12]}")

    def noted(self, key: str) -> dict[str, Any]:
        """Return the notes of this key by the entry, or candidate, that they stand beside."""
        with self.reading() as connection:
            held = [(row.id, _beside(row)[key]) for row in connection.execute(select(candidate)) if key in _beside(row)]
            found = connection.execute(select(notes.c.entry, notes.c.value).where(notes.c.key == key)).all()
        return {**dict(held), **{row.entry: row.value for row in found}}

    def annotate(self, entry_id: str, key: str, value: object) -> None:
        """Write a note beside a recorded entry, in place of an older one with this key.

        Raises:
            NotFound: There is no such entry.
        """
        self.entry(entry_id)
        with self.changing() as connection:
            connection.execute(delete(notes).where(notes.c.entry == entry_id, notes.c.key == key))
            connection.execute(insert(notes).values(entry=entry_id, key=key, value=plain(value)))

    def candidate(self) -> Entry | None:
        """Return the entry that waits for `accept` or `discard`, if one does."""
        with self.reading() as connection:
            held = connection.execute(select(candidate)).first()
        return _read(held.id, held.body) if held else None

    def hold(self, entry: Entry, notes: Mapping[str, object]) -> None:
        """Keep an entry aside as the candidate, with its notes. Holding the same again changes nothing.

        Raises:
            BadInput: Another candidate waits, or the entry does not fit this ledger.
            BrokenStore: One of its objects is missing.
        """
        with self.changing() as connection:
            self._check(connection, entry)
            held = connection.execute(select(candidate)).first()
            if held is None:
                values = {"id": entry.id, "time": now(), "body": entry.to_json(), "notes": plain(dict(notes))}
                connection.execute(insert(candidate).values(values))
            elif held.id != entry.id:
                raise BadInput(f"candidate {held.id[:12]} still waits; run 'perdure accept' or 'perdure discard' first")

    def accept(self) -> Entry:
        """Record the candidate and move head to it.

        Raises:
            NotFound: There is no candidate.
            BadInput: Head is no longer the candidate's parent.
            BrokenStore: One of its objects is missing.
        """
        with self.changing() as connection:
            held = self._held(connection)
            entry = _read(held.id, held.body)
            self._check(connection, entry)
            head = connection.execute(select(refs.c.entry).where(refs.c.name == "head")).scalar()
            if head != entry.parent:
                raise BadInput(
                    f"head moved to {str(head)[:12]}, candidate {entry.id[:12]} was made on {str(entry.parent)[:12]}; "
                    "run 'perdure discard' and learn again, or roll back to that entry and accept"
                )
            self._insert(connection, entry, _beside(held))
            self._point(connection, "head", entry.id, "accept")
            connection.execute(delete(candidate))
        return entry

    def accepted(self) -> Entry | None:
        """Return head where accepting it was head's last move and no other candidate waits."""
        last = next(iter(self.reflog()), None)
        return None if last is None or self.candidate() or last.why != "accept" else self.entry(last.new)

    def held_since(self) -> str | None:
        """Return when the candidate was put aside, in UTC to the second, as ISO 8601; None where none waits."""
        with self.reading() as connection:
            return connection.execute(select(candidate.c.time)).scalar()

    def discard(self, line: LogEntry | None = None) -> Entry:
        """Drop the candidate and return it; `gc` frees its objects.

        Args:
            line: What `discarded` lists of it from now on; None for nothing.

        Raises:
            NotFound: There is no candidate.
        """
        with self.changing() as connection:
            held = self._held(connection)
            connection.execute(delete(candidate))
            if line is not None:
                told = replace(line, refs=(), discarded=now())
                connection.execute(insert(discarded).values(id=line.entry, record=told.to_json()))
        return _read(held.id, held.body)

    def discarded(self) -> list[LogEntry]:
        """Return the candidates that were discarded, newest first."""
        with self.reading() as connection:
            if version_of(connection) < 5:
                return []
            query = select(discarded.c.id, discarded.c.record).order_by(discarded.c.number.desc())
            found = connection.execute(query).all()
        return [from_store(LogEntry, record, f"what is listed of candidate {name[:12]}") for name, record in found]

    def _named(self, name: str) -> Entry:
        """Return the entry of a ref, of "candidate", or of an id or its beginning."""
        held, names = self.candidate(), self.refs()
        if name in names:
            try:
                return self.entry(names[name])
            except NotFound as error:
                raise BrokenStore(
                    f"ref '{name}' names {names[name][:12]}, which is no entry of {self.path}; restore it from a backup, or "
                    "point the ref elsewhere with 'perdure rollback ENTRY'"
                ) from error
        every = {entry.id: entry for entry in [*self.entries(), *([held] if held else [])]}
        found = [entry_id for entry_id in every if entry_id.startswith(name)] if len(name) >= 4 else []
        if len(found) == 1:
            return every[found[0]]
        if found:
            raise BadInput(
                f"'{name}' begins {len(found)} entries: {', '.join(i[:16] for i in found[:5])}; give more digits"
            )
        if name == CANDIDATE:
            return held or _no_candidate()
        near = get_close_matches(name, names, n=5, cutoff=0.5) or list(names)[:5]
        raise NotFound(f"no ref or entry '{name}'; nearest refs: {', '.join(near)} ('perdure log' lists the entries)")

    def _held(self, connection: Connection) -> Row:
        held = connection.execute(select(candidate)).first()
        return held or _no_candidate()

    def _check(self, connection: Connection, entry: Entry) -> None:
        """Refuse an entry that names what is not here."""
        parent = connection.execute(select(entries.c.body).where(entries.c.id == str(entry.parent))).scalar()
        if parent is None:
            raise BadInput(
                f"entry {entry.id[:12]} has parent {entry.parent}, which is not in {self.path}; record that first"
            )
        if parent["base"] != entry.base:
            raise BadInput(
                f"entry {entry.id[:12]} was made on base model {entry.base[:12]}, its parent on {parent['base'][:12]}"
            )
        kept = select(manifests.c.hash).where(manifests.c.hash == entry.memory)
        if entry.memory is not None and connection.execute(kept).first() is None:
            raise BadInput(
                f"entry {entry.id[:12]} has memory {entry.memory[:12]}, which is not kept; put the manifest first"
            )
        for name, version in entry.tasks.items():
            query = select(tasks.c.version).where(tasks.c.version == version, tasks.c.name == name)
            if connection.execute(query).first() is None:
                raise BadInput(f"version {version[:12]} of task '{name}' is not kept; put the task first")
        for name in sorted(entry.objects):
            if not self.objects.path(name).exists():
                raise BrokenStore(f"object {name[:12]} of entry {entry.id[:12]} is missing; put it again, then record")

    def _insert(self, connection: Connection, entry: Entry, beside: Mapping[str, object]) -> bool:
        """Add the entry and its notes; say whether it is new."""
        if connection.execute(select(entries.c.id).where(entries.c.id == entry.id)).first():
            return False
        values = {"id": entry.id, "parent": entry.parent, "kind": entry.kind, "task": entry.task}
        connection.execute(insert(entries).values(**values, time=now(), body=entry.to_json()))
        if beside:
            lines = [{"entry": entry.id, "key": key, "value": plain(value)} for key, value in beside.items()]
            connection.execute(insert(notes), lines)
        return True

    def _contains(self, connection: Connection, ref: str, entry_id: str) -> bool:
        """Say whether the entry is on the line of the ref."""
        target = connection.execute(select(refs.c.entry).where(refs.c.name == ref)).scalar()
        return target is not None and entry_id in {entry.id for entry in self.ancestors(self.entry(target))}

    def _point(self, connection: Connection, ref: str, entry_id: str, why: str) -> None:
        """Point the ref at the entry and write the reflog, unless it points there already."""
        old = connection.execute(select(refs.c.entry).where(refs.c.name == ref)).scalar()
        if old == entry_id:
            return
        if old is None:
            connection.execute(insert(refs).values(name=ref, entry=entry_id))
        else:
            connection.execute(update(refs).where(refs.c.name == ref).values(entry=entry_id))
        connection.execute(insert(reflog).values(ref=ref, time=now(), old=old, new=entry_id, why=why))


def _read(name: str, body: Any) -> Entry:
    """Restore a recorded entry."""
    try:
        entry = Entry.from_json(body)
        sound = entry.id == name and isinstance(entry.task, str | None)
    except (AttributeError, TypeError, ValueError) as error:  # a field that we do not know, or one that is not there
        raise BrokenStore(
            f"entry {name[:12]} was written by another version of perdure, or damaged ({error}); upgrade perdure, or "
            "restore the workspace from a backup"
        ) from error
    if not sound:
        raise BrokenStore(
            f"entry {name[:12]} is not what was recorded: it was damaged, or changed by hand; restore the workspace from a backup"
        )
    return entry


def _beside(held: Row[Any]) -> dict[str, Any]:
    """Return the notes of the candidate."""
    if not isinstance(held.notes, dict):
        raise BrokenStore(
            f"what is noted of candidate {held.id[:12]} is damaged in ledger.sqlite; run 'perdure discard' and learn again"
        )
    return dict(held.notes)


def _no_candidate() -> NoReturn:
    raise NotFound("no candidate waits; only a learn that its gate refused leaves one")
