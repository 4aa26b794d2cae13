"""Read the data of a learn: the new task version, checked against all that the workspace knows."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from perdure.bridges.hub_data import read_hub
from perdure.core.errors import BadInput, BadSpec
from perdure.core.values import shown
from perdure.core.words import counted
from perdure.data.hub_names import is_hub
from perdure.data.leaks import refuse_leaks
from perdure.data.load import load_task, task_file
from perdure.data.sources import shown_data
from perdure.data.spec import read_settings
from perdure.data.task import TaskData
from perdure.data.update import update_task
from perdure.evaluate.scorers import OF_ROWS, get_scorer, read_scorer
from perdure.ledger import Entry, Ledger
from perdure.workflows.known_rows import KnownRows
from perdure.workflows.learn.request import Request
from perdure.workflows.session import Session
from perdure.workflows.trust import trusted_text, with_hash
from perdure.workflows.unscored import refuse_unrun


@dataclass(frozen=True)
class ReadData:
    """A new task version.

    Args:
        task: The version.
        known: The version at the parent, if this is an update.
        notices: What the user should know of the data.
    """

    task: TaskData
    known: TaskData | None
    notices: tuple[str, ...]


def read_data(session: Session, parent: Entry, request: Request) -> ReadData:
    """Return the task version that `request` makes on `parent`, without rows that were deleted before.

    Raises:
        BadInput: The data cannot be used, a test row leaks, no test row is left, or programs would score it that may not run.
        BadSpec: A setting is not valid.
    """
    name, ledger = request.name, session.ledger
    known = session.task(name, parent) if name in parent.tasks else None
    replaced = _replaced(ledger, request)
    task = load_task(
        name,
        request.data,
        test=request.test,
        overrides=_settings(session, request),
        known=known,
        selected=request.selected,
        hub=read_hub,
    )
    if task.scorer["name"] not in OF_ROWS:
        get_scorer(task.scorer, partial(trusted_text, ledger.root))  # code that cannot run fails before the training
    read_scorer(task.scorer)
    refuse_unrun(session, task)
    if known is not None:
        before = KnownRows.of(ledger, parent, (*task.train, *task.test))
        task = update_task(known, task, before.questions(["train"], name))
    rows = KnownRows.of(ledger, parent, (*task.learned, *task.test))
    unknown = [guarded for guarded in task.spec.guard or [] if guarded not in parent.tasks]
    if unknown:
        if own := [one.name for one in ledger.guards() if one.name in unknown]:
            raise BadInput(
                f"guard names the tasks that the gate judges, and {own[0]} is a guard of the workspace, which each "
                "learn scores anyway; leave it out"
            )
        here = sorted(map(ledger.shown_name, parent.tasks))
        raise BadInput(f"guard names tasks that head does not know: {unknown}; it knows {here}")
    if not request.allow_leaks:
        try:
            _refuse_leaks(session, task, rows)
        except BadInput as error:
            parts = ", ".join(f"{len(getattr(task, part)):,} {part}" for part in ("train", "validation", "test"))
            raise BadInput(f"{error} (rows read: {parts}, as {task.format})") from error
    task, dropped = _without_deleted(ledger, task)
    notices = [*task.notices, *replaced, *_leaks_elsewhere(session, task, rows)]
    taught = rows.hashes(["train"], name) if known else set()
    if all(row.hash in taught for row in task.train):
        notices.append(f"every train row of {name} was learned before")
    if dropped:
        notices.append(f"deleted from this workspace before, and left out: {counted(dropped, 'row')}")
    if not task.test:
        raise BadInput(f"every test row of task {name!r} was deleted from this workspace; give others with --test FILE")
    return ReadData(task, known, tuple(notices))


def _settings(session: Session, request: Request) -> dict[str, Any]:
    """Return the settings of a request: a scorer in a file has the hash of the file, guarded tasks have no aliases.

    Raises:
        BadInput: The file of a scorer cannot be read, or is not trusted.
    """
    ledger, file = session.ledger, task_file(request.data)
    given = {**(read_settings(file) if file else {}), **request.settings}
    scorer, guard, settings = given.get("scorer"), given.get("guard"), dict(request.settings)
    if isinstance(scorer, str | dict) and (chosen := with_hash(ledger.root, scorer)) != scorer:
        settings["scorer"] = chosen
    if isinstance(guard, list) and all(isinstance(name, str) for name in guard):
        settings["guard"] = [ledger.task_name(name) for name in guard]
    return settings


def _replaced(ledger: Ledger, request: Request) -> list[str]:
    """Return notices of settings of a task file that the command overrides.

    Raises:
        BadSpec: The name of the task, or its data file, is given twice.
    """
    name, data, test, settings = request.name, request.data, request.test, request.settings
    given = {**settings, **({"test": test} if test else {})}
    if given.get("name", name) != name:
        raise BadSpec(
            f"the settings name the task {given['name']!r}, and {name!r} is to be learned; leave the name out"
        )
    if test and settings.get("test"):
        raise BadSpec(f"test rows are given twice, as {shown_data(test)} and in the settings; leave one out")
    if (file := task_file(data)) is None:
        if "train" in given:
            raise BadSpec(
                f"the settings name the train file {given['train']}, and the data file is {shown_data(data)}; leave one out"
            )
        return []
    written = {key: value for key, value in read_settings(file).items() if key in given or key == "name"}
    if isinstance(called := written.get("name"), str):
        written["name"] = ledger.task_name(called)
    return [
        f"{file} has {key}: {shown(_plain(value))}, which is overridden by the value given with it"
        for key, value in written.items()
        if _plain(value) != _plain(given.get(key, name))
    ]


def _plain(value: Any) -> Any:
    """Return a setting as it is compared and shown: a path by where it leads."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value.resolve()) if isinstance(value, Path) and not is_hub(value) else value


def _refuse_leaks(session: Session, task: TaskData, rows: KnownRows) -> None:
    """Raise if a test row is learned from, within the task or across the task versions of head's history."""
    refuse_leaks(task, [])
    for version in rows.leaks(task):
        refuse_leaks(task, [session.tasks.get(rows.history[version], version)], itself=False)


def _leaks_elsewhere(session: Session, task: TaskData, rows: KnownRows) -> list[str]:
    """Return notices of entries outside head's history that have rows of this task on the other side of a test."""
    notices = []
    for entry, version in rows.leaks_elsewhere(task):
        name = next(name for name, known in entry.tasks.items() if known == version)
        try:
            refuse_leaks(task, [session.tasks.get(name, version)], itself=False)
        except BadInput as error:
            leak = str(error).partition(";")[0]
            notices.append(
                f"{leak}; entry {entry.id[:12]}, which knows that, is outside head's history, so this learn goes on: do not "
                f"compare its scores with those of {entry.id[:12]}"
            )
    return notices


def _without_deleted(ledger: Ledger, task: TaskData) -> tuple[TaskData, int]:
    gone = ledger.deleted({row.hash for row in (*task.train, *task.validation, *task.test)})
    if not gone:
        return task, 0
    names = ("train", "validation", "test")
    parts: dict[str, Any] = {p: tuple(r for r in getattr(task, p) if r.hash not in gone) for p in names}
    lost = sum(len(getattr(task, part)) - len(rows) for part, rows in parts.items())
    return replace(task, **parts, fingerprint="", version="", default="", choices=()), lost
