"""Entries, the refs that name them, and the one candidate that may wait for a decision."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Connection, Row, delete, insert, select, update

from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.core.records import Record, from_store, plain
from perdure.core.slots import ROUTE, is_isolated, measured_slot, view_of, without_task
from perdure.ledger.database import (
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
from perdure.ledger.guards import GuardBook
from perdure.ledger.objects import ObjectStore
from perdure.ledger.records import LogEntry, LogLine, Move

R = TypeVar("R", bound=Record)
CANDIDATE = "candidate"


class History(GuardBook):
    """The history of a workspace. Entries are added and never changed; only `remove_abandoned` deletes some.

    Refs move, and the reflog records from where, when and why.
    """

    def __init__(self, path: Path, objects: ObjectStore) -> None:
        super().__init__(path)
        self.objects = objects
        # Entries never change, so each is read once.
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
            BrokenStore: An entry was written by another version of perdure.
        """
        with self.reading() as connection:
            before = select(entries.c.id).where(entries.c.number <= self._last)
            if set(connection.execute(before).scalars()) != self._known.keys():  # some were removed, here or elsewhere
                self._known, self._last = {}, 0
            query = select(entries.c.number, entries.c.id, entries.c.body).where(entries.c.number > self._last)
            for number, name, body in connection.execute(query.order_by(entries.c.number)):
                self._known[name] = _read(name, body)
                self._last = number
        return list(self._known.values())

    def resolve(self, ref: str) -> Entry:
        """Return the entry that `ref` names.

        `ref` is a ref, "candidate", or the first digits of an id (at least 4). "~N" after it goes back N entries.

        Raises:
            NotFound: Nothing has this name, or "~N" goes back beyond the base.
            BadInput: Several ids begin with these digits, or they are the name of a task too.
        """
        name, _, steps = ref.partition("~")
        entry = self._named(name)
        if name == ref:
            return entry
        if not re.fullmatch("[0-9]*", steps):
            raise BadInput(f"'{ref}' is no ref; write the number of entries to go back after ~, as in head~2")
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

    def last_learn(self, entry: Entry, task: str) -> Entry | None:
        """Return the entry that learned a task last, `entry` or one before it; None where none did."""
        return next((one for one in self.ancestors(entry) if one.kind == "learn" and one.task == task), None)

    def slots(self, entry: Entry) -> dict[str, str]:
        """Return object hash by slot at an entry, sorted by slot: each slot as its newest writer among the ancestors left it."""
        hashes: dict[str, str | None] = {}
        for ancestor in reversed(self.ancestors(entry)):
            hashes.update(ancestor.slots)
        return {slot: name for slot, name in sorted(hashes.items()) if name is not None}

    def state(self, entry: Entry) -> str:
        """Return the hash of the whole model state at an entry. It is the key of scores of requests without a known task."""
        return state_hash(entry.base, self.slots(entry))

    def view(self, entry: Entry, task: str | None = None) -> dict[str, str]:
        """Return object hash by slot of the view of `task` at an entry; see `core.slots`.

        The view of a task that is answered with labels is what was measured of it.

        Args:
            entry: An entry or a draft.
            task: Name of a task; None for the shared view.
        """
        slots = self.slots(entry)
        if self.labelled_by(entry, [task]):
            return {name: slots[name] for name in (measured_slot(ROUTE, str(task)),)}
        return view_of(slots, task)

    def labelled_by(self, entry: Entry, tasks: Iterable[str | None] | None = None) -> list[str]:
        """Return the tasks that are answered with one of their labels at an entry, and not by generation, in their order.

        This is the one place that decides it: the slot `route:<task>` has what was measured of the task, and the recipe that
        learned the task last trained nothing (`train: none`). Any later learn with another recipe thus ends it.

        Args:
            entry: An entry or a draft.
            tasks: Names of the tasks in question; None for all that the entry knows.
        """
        slots = self.slots(entry)
        measured = [
            t for t in (entry.tasks if tasks is None else tasks) if t is not None and measured_slot(ROUTE, t) in slots
        ]
        if not measured:
            return []
        last: dict[str | None, Entry] = {}
        for one in self.ancestors(entry):
            if one.kind == "learn":
                last.setdefault(one.task, one)
        return [task for task in measured if task in last and (last[task].recipe or {}).get("train") == "none"]

    def seen(self, entry: Entry, task: str | None) -> str:
        """Return the hash of the view of `task` at an entry. It is the key of the task's scores.

        A task without slots of its own has the shared view, which is the whole state where no task is isolated. Later learns do
        not change the view of an isolated task, or of one that is answered with labels.
        """
        return self.seen_by(entry, [task])[task]

    def seen_by(self, entry: Entry, tasks: Iterable[str | None]) -> dict[str | None, str]:
        """Return `seen` of several tasks; tasks without slots of their own have the same view."""
        slots, wanted = self.slots(entry), list(tasks)
        shared = state_hash(entry.base, view_of(slots))
        seen: dict[str | None, str] = {
            task: state_hash(entry.base, without_task(view_of(slots, task), task))
            if is_isolated(slots, task)
            else shared
            for task in wanted
        }
        for task in self.labelled_by(entry, wanted):
            seen[task] = state_hash(entry.base, {ROUTE: slots[measured_slot(ROUTE, task)]})
        return seen

    def log(self, entry: Entry | None = None) -> list[LogLine]:
        """Return all entries, or an entry and its ancestors, newest first."""
        names: dict[str, list[str]] = {}
        for ref, target in self.refs().items():
            names.setdefault(target, []).append(ref)
        wanted = None if entry is None else {ancestor.id for ancestor in self.ancestors(entry)}
        with self.reading() as connection:
            times = {row.id: row.time for row in connection.execute(select(entries.c.id, entries.c.time))}
        # from the bodies, whose ids were checked: the other columns could have been changed
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
        """Record an entry whose objects are stored, with its notes, and move `ref` to it, in one transaction.

        Recording an entry again keeps the first notes. A ref that is at the entry or at a descendant is not moved.

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
        """Point a ref at a recorded entry; a ref that does not exist is created.

        Raises:
            NotFound: There is no such entry.
            BadInput: The ref is "base", or its name could be an id.
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
        """Return the notes of an entry or the candidate: durations, versions, the learn record."""
        with self.reading() as connection:
            waiting = connection.execute(select(candidate).where(candidate.c.id == entry_id)).first()
            recorded = connection.execute(select(notes.c.key, notes.c.value).where(notes.c.entry == entry_id)).all()
        return {**(_candidate_notes(waiting) if waiting else {}), **{row.key: row.value for row in recorded}}

    def note(self, entry_id: str, key: str, kind: type[R]) -> R | None:
        """Return one note of an entry or the candidate; None where it has none.

        Args:
            entry_id: Id of the entry.
            key: Name of the note.
            kind: The type of the record in it.

        Raises:
            BrokenStore: The note is not such a record.
        """
        value = self.notes(entry_id).get(key)
        return None if value is None else from_store(kind, value, f"note '{key}' of entry {entry_id[:12]}")

    def notes_with(self, key: str) -> dict[str, Any]:
        """Return the notes with this key, by the id of their entry or candidate."""
        with self.reading() as connection:
            waiting = [(row.id, _candidate_notes(row)) for row in connection.execute(select(candidate))]
            recorded = connection.execute(select(notes.c.entry, notes.c.value).where(notes.c.key == key)).all()
        of_candidate = {name: values[key] for name, values in waiting if key in values}
        return {**of_candidate, **{row.entry: row.value for row in recorded}}

    def annotate(self, entry_id: str, key: str, value: object) -> None:
        """Write a note of a recorded entry; it replaces an older one with this key.

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
            row = connection.execute(select(candidate)).first()
        return _read(row.id, row.body) if row else None

    def put_candidate(self, entry: Entry, notes: Mapping[str, object]) -> None:
        """Store an entry as the candidate, with its notes. Storing the same entry again changes nothing.

        Raises:
            BadInput: Another candidate waits, or the entry does not fit this ledger.
            BrokenStore: One of its objects is missing.
        """
        with self.changing() as connection:
            self._check(connection, entry)
            waiting = connection.execute(select(candidate)).first()
            if waiting is None:
                values = {"id": entry.id, "time": now(), "body": entry.to_json(), "notes": plain(dict(notes))}
                connection.execute(insert(candidate).values(values))
            elif waiting.id != entry.id:
                raise BadInput(
                    f"candidate {waiting.id[:12]} still waits; run 'perdure accept' or 'perdure discard' first"
                )

    def accept(self) -> Entry:
        """Record the candidate and move head to it.

        Raises:
            NotFound: There is no candidate.
            BadInput: Head is no longer the candidate's parent.
            BrokenStore: One of its objects is missing.
        """
        with self.changing() as connection:
            waiting = self._waiting(connection)
            entry = _read(waiting.id, waiting.body)
            self._check(connection, entry)
            head = connection.execute(select(refs.c.entry).where(refs.c.name == "head")).scalar()
            if head != entry.parent:
                raise BadInput(
                    f"head moved to {str(head)[:12]}, candidate {entry.id[:12]} was made on {str(entry.parent)[:12]}; "
                    "run 'perdure discard' and learn again, or roll back to that entry and accept"
                )
            self._insert(connection, entry, _candidate_notes(waiting))
            self._point(connection, "head", entry.id, "accept")
            connection.execute(delete(candidate))
        return entry

    def accepted(self) -> Entry | None:
        """Return head if its last move was to accept it and no other candidate waits; else None."""
        last = next(iter(self.reflog()), None)
        return None if last is None or self.candidate() or last.why != "accept" else self.entry(last.new)

    def candidate_since(self) -> str | None:
        """Return when the candidate was stored, in UTC to the second, as ISO 8601; None where none waits."""
        with self.reading() as connection:
            return connection.execute(select(candidate.c.time)).scalar()

    def discard(self, line: LogEntry | None = None) -> Entry:
        """Delete the candidate and return it; `gc` frees its objects.

        Args:
            line: The line about it that `discarded` returns from now on; None for no line.

        Raises:
            NotFound: There is no candidate.
        """
        with self.changing() as connection:
            waiting = self._waiting(connection)
            connection.execute(delete(candidate))
            if line is not None:
                record = replace(line, refs=(), discarded=now())
                connection.execute(insert(discarded).values(id=line.entry, record=record.to_json()))
        return _read(waiting.id, waiting.body)

    def discarded(self) -> list[LogEntry]:
        """Return the candidates that were discarded, newest first."""
        with self.reading() as connection:
            if version_of(connection) < 5:
                return []
            query = select(discarded.c.id, discarded.c.record).order_by(discarded.c.number.desc())
            lines = connection.execute(query).all()
        return [from_store(LogEntry, record, f"the line of discarded candidate {name[:12]}") for name, record in lines]

    def abandoned(self) -> list[Entry]:
        """Return the entries that no ref, no candidate and no reference of a guard reaches, oldest first."""
        waiting = self.candidate()
        named = [*self.refs().values(), *(guard.reference for guard in self.guards())]
        return self._unreached([self.entry(target) for target in named] + ([waiting] if waiting else []))

    def remove_abandoned(self, names: Collection[str]) -> int:
        """Delete abandoned entries and lines of discarded candidates, with their notes, and return how many.

        An entry stays if a ref or a candidate reaches it by now, or another entry that is not named here.

        Args:
            names: Ids of entries and of discarded candidates.
        """
        left = self.abandoned()
        stay = {entry.id for entry in self.entries()} - {entry.id for entry in left if entry.id in names}
        lost = {entry.id for entry in self._unreached([self.entry(name) for name in stay])}
        gone = {line.entry for line in self.discarded()} & set(names)
        if not lost and not gone:
            return 0
        with self.changing() as connection:
            for name in lost:
                connection.execute(delete(entries).where(entries.c.id == name))
                connection.execute(delete(notes).where(notes.c.entry == name))
            for name in gone:
                connection.execute(delete(discarded).where(discarded.c.id == name))
        self._known, self._last = {}, 0
        return len(lost | gone)

    def _unreached(self, ends: Iterable[Entry]) -> list[Entry]:
        """Return the entries that are neither among these nor before one of them."""
        reached: set[str] = set()
        for end in ends:
            one: Entry | None = end
            while one is not None and one.id not in reached:
                reached.add(one.id)
                one = None if one.parent is None else self.entry(one.parent)
        return [entry for entry in self.entries() if entry.id not in reached]

    def _named(self, name: str) -> Entry:
        """Return the entry of a ref, of "candidate", or of the first digits of an id."""
        waiting, names = self.candidate(), self.refs()
        if name in names:
            try:
                return self.entry(names[name])
            except NotFound as error:
                raise BrokenStore(
                    f"ref '{name}' names {names[name][:12]}, which is no entry of {self.path}; restore it from a backup, or "
                    "point the ref elsewhere with 'perdure rollback ENTRY'"
                ) from error
        every = {entry.id: entry for entry in [*self.entries(), *([waiting] if waiting else [])]}
        matches = [entry_id for entry_id in every if entry_id.startswith(name)] if len(name) >= 4 else []
        if matches and name in self.task_names():
            raise BadInput(
                f"'{name}' is the name of a task, and entry {matches[0][:16]} begins with it; to name the entry, give more "
                "digits of its id"
            )
        if len(matches) == 1:
            return every[matches[0]]
        if matches:
            raise BadInput(
                f"{len(matches)} entries begin with '{name}': {', '.join(i[:16] for i in matches[:5])}; give more digits"
            )
        if name == CANDIDATE:
            return waiting or _no_candidate()
        near = get_close_matches(name, names, n=5, cutoff=0.5) or list(names)[:5]
        raise NotFound(f"no ref or entry '{name}'; nearest refs: {', '.join(near)} ('perdure log' lists the entries)")

    def task_names(self) -> set[str]:
        """Return the names of all tasks of all entries and of the candidate."""
        waiting = self.candidate()
        return {name for entry in (*self.entries(), *([waiting] if waiting else [])) for name in entry.tasks}

    def _waiting(self, connection: Connection) -> Row:
        return connection.execute(select(candidate)).first() or _no_candidate()

    def _check(self, connection: Connection, entry: Entry) -> None:
        """Refuse an entry whose parent, base, memory, tasks or objects are missing or do not fit."""
        parent = connection.execute(select(entries.c.body).where(entries.c.id == str(entry.parent))).scalar()
        if parent is None:
            raise BadInput(
                f"entry {entry.id[:12]} has parent {entry.parent}, which is not in {self.path}; record that first"
            )
        if parent["base"] != entry.base:
            raise BadInput(
                f"entry {entry.id[:12]} was made on base model {entry.base[:12]}, its parent on {parent['base'][:12]}"
            )
        stored = select(manifests.c.hash).where(manifests.c.hash == entry.memory)
        if entry.memory is not None and connection.execute(stored).first() is None:
            raise BadInput(
                f"entry {entry.id[:12]} has memory {entry.memory[:12]}, which is not in {self.path}; put the manifest first"
            )
        for name, version in entry.tasks.items():
            query = select(tasks.c.version).where(tasks.c.version == version, tasks.c.name == name)
            if connection.execute(query).first() is None:
                raise BadInput(f"version {version[:12]} of task '{name}' is not in {self.path}; put the task first")
        for name in sorted(entry.objects):
            if not self.objects.path(name).exists():
                raise BrokenStore(f"object {name[:12]} of entry {entry.id[:12]} is missing; put it again, then record")

    def _insert(self, connection: Connection, entry: Entry, notes_of_entry: Mapping[str, object]) -> bool:
        """Add the entry and its notes; return whether it is new."""
        if connection.execute(select(entries.c.id).where(entries.c.id == entry.id)).first():
            return False
        values = {"id": entry.id, "parent": entry.parent, "kind": entry.kind, "task": entry.task}
        connection.execute(insert(entries).values(**values, time=now(), body=entry.to_json()))
        if notes_of_entry:
            lines = [{"entry": entry.id, "key": key, "value": plain(value)} for key, value in notes_of_entry.items()]
            connection.execute(insert(notes), lines)
        return True

    def _contains(self, connection: Connection, ref: str, entry_id: str) -> bool:
        """Return whether the entry is the target of the ref or one of its ancestors."""
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
    except (AttributeError, TypeError, ValueError) as error:  # an unknown field, or a missing one
        raise BrokenStore(
            f"entry {name[:12]} was written by another version of perdure, or damaged ({error}); upgrade perdure, or "
            "restore the workspace from a backup"
        ) from error
    if not sound:
        raise BrokenStore(
            f"entry {name[:12]} is not what was recorded: it was damaged, or changed by hand; restore the workspace from a backup"
        )
    return entry


def _candidate_notes(row: Row[Any]) -> dict[str, Any]:
    """Return the notes of the candidate."""
    if not isinstance(row.notes, dict):
        raise BrokenStore(
            f"the notes of candidate {row.id[:12]} are damaged in ledger.sqlite; run 'perdure discard' and learn again"
        )
    return dict(row.notes)


def _no_candidate() -> NoReturn:
    raise NotFound("no candidate waits; only a learn that its gate refused leaves one")
