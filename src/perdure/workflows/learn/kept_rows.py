"""Which rows a workspace stores with their text, and how the text of the other rows is given again.

Rows that are read again are stored with their text. These are memory rows, for replay, and test rows, for scores.
All other rows are stored by name: hashes, which show leaks and repeated data.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from perdure.bridges.hub_data import read_hub
from perdure.core.errors import BadInput, NotFound
from perdure.core.files import write_text
from perdure.core.recipe import Recipe
from perdure.core.records import Record
from perdure.core.rows import Row, RowName
from perdure.data.load import read_again
from perdure.data.sources import Data
from perdure.data.split import distinct
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger, row_key, row_name
from perdure.ledger.store import CONFIG
from perdure.workflows.session import Session


def keeps_all(ledger: Ledger, task: TaskData) -> bool:
    """Return whether the text of every row of a task is stored."""
    return (task.spec.keep_rows or ledger.keep_rows) == "all"


def parts_to_keep(ledger: Ledger, task: TaskData) -> dict[str, Sequence[Row | RowName]]:
    """Return the rows of a task by part as the workspace stores them: with their text, or by name."""
    if keeps_all(ledger, task):
        return {"train": task.train, "test": task.test, "validation": task.validation}
    label = task.answers_are_labels
    by_name = {
        part: [row_name(row, part, label=label) for row in getattr(task, part)] for part in ("train", "validation")
    }
    return {**by_name, "test": task.test}


def old_rows(
    session: Session, parent: Entry, task: TaskData, recipe: Recipe, given: Mapping[str, Sequence[Data]]
) -> tuple[Row, ...]:
    """Return the train rows of every other task version in an entry's history, for a recipe that trains on them again.

    Args:
        session: Of the workspace.
        parent: The entry.
        task: The task to learn.
        recipe: How it is learned; empty unless it trains on all rows.
        given: Files with the rows of tasks whose text is not stored, by task.

    Raises:
        BadInput: The text of a row is neither stored nor in a file, or a file has rows that the task does not have.
    """
    if recipe.settings.data != "all":
        if given:
            raise BadInput(f"recipe {recipe.name} reads no rows of older tasks; leave out --rows (rows=...)")
        return ()
    versions = [other for other in session.history(parent) if other.version != task.version]
    if unknown := sorted(given.keys() - {other.name for other in versions}):
        raise BadInput(f"--rows names {', '.join(unknown)}, which head did not learn before")
    texts: dict[str, Row] = {}
    for name, files in given.items():
        texts |= given_rows(session, [other for other in versions if other.name == name], name, files)
    texts |= {row_key(row): row for other in versions for row in other.train}
    wanted = {other.version: session.ledger.train_keys(other.version) for other in versions}
    missing: dict[str, int] = {}
    for other in versions:
        if lost := sum(key not in texts for key in wanted[other.version]):
            missing[other.name] = missing.get(other.name, 0) + lost
    if missing:
        raise BadInput(_missing(recipe.name, missing, given))
    return distinct(texts[key] for keys in wanted.values() for key in keys)


def given_rows(session: Session, versions: Sequence[TaskData], name: str, files: Sequence[Data]) -> dict[str, Row]:
    """Return the rows that files give for a task, by key. Each must be a row of the task, of whatever part of it.

    Args:
        session: Of the workspace.
        versions: The versions of the task that an entry's history has.
        name: Name of the task.
        files: The files that the user gives for it.

    Raises:
        BadInput: A row is none of the task's.
    """
    known = set[str]().union(*(session.ledger.row_hashes(version.version) for version in versions))
    rows = [row for file in files for row in read_again(versions[-1], file, read_hub)]
    strange = [row for row in rows if row.hash not in known]
    if strange and (gone := session.ledger.deleted(row.hash for row in strange)):
        strange = [row for row in strange if row.hash not in gone]
    if strange:
        raise BadInput(
            f"--rows {name}: {len(strange)} of {len(rows)} rows are not rows of task {name}, the first {strange[0].source}; "
            "give the file that the task was learned from, unchanged"
        )
    return {row_key(row): row for row in rows}


def _missing(recipe: str, missing: Mapping[str, int], given: Mapping[str, Sequence[Data]]) -> str:
    """Return the message for rows whose text is neither stored nor given, by task."""
    counts = ", ".join(f"{count} of task {name}" for name, count in missing.items())
    if wrong := [name for name in missing if name in given]:
        return (
            f"--rows {wrong[0]}: {missing[wrong[0]]} train rows of task {wrong[0]} are in none of its files; give every file "
            "that the task was learned from, unchanged (--rows can be repeated)"
        )
    options = " ".join(f"--rows {name}=FILE" for name in missing)
    return (
        f"recipe {recipe} trains on the rows of every task, and the text of some train rows is not stored ({counts}); give the "
        f"files that they were learned from with {options}, or learn in a workspace that stores all rows ('perdure init "
        "--keep-rows all', or 'keep_rows: all' in a task file)"
    )


@dataclass(frozen=True)
class Pruned(Record):
    """The text that was dropped.

    Args:
        rows: How many rows lost their text.
        bytes: Bytes of it.
        kept: The tasks that store all their rows.
    """

    rows: int
    bytes: int
    kept: tuple[str, ...]


def prune(session: Session, tasks: Iterable[str] = ()) -> Pruned:
    """Drop the text of every row that nothing reads again, now and from now on. Their hashes stay.

    A task whose own setting is "all" stores its rows unless it is named.

    Args:
        session: Of the workspace.
        tasks: Names of such tasks.

    Raises:
        NotFound: No task has one of the names.
        Busy: All that is done, but a reader holds the log, where the text still is; calling this again is enough.
    """
    with session.writing():
        pruned = _prune(session, {session.ledger.task_name(name) for name in tasks})
        session.tasks.clear()
        return pruned


def _prune(session: Session, tasks: set[str]) -> Pruned:
    ledger, versions = session.ledger, session.tasks.versions(session.ledger.entries())
    if unknown := sorted(tasks - {task.name for task in versions}):
        raise NotFound(f"no task {unknown[0]!r} in this workspace; 'perdure status' lists the tasks")
    whole = sorted({task.name for task in versions if task.spec.keep_rows == "all"} - tasks)
    for task in versions:  # the choices of a task must outlive the rows that they come from
        if task.choices:
            ledger.put_spec(task.version, task.to_json())
    labelled = {task.name for task in versions if task.answers_are_labels}
    dropped = ledger.drop_texts(whole, labelled)
    if ledger.keep_rows == "all":
        ledger.config["keep_rows"] = "needed"
        write_text(ledger.root / CONFIG, json.dumps(ledger.config, indent=2) + "\n")
    return Pruned(dropped.rows, dropped.bytes, tuple(whole))
