"""Rename a task: an alias, under which people see it and commands take it. No id, no row and no score changes."""

from dataclasses import dataclass

from perdure.core.errors import BadInput, NotFound
from perdure.core.plain_text import quoted
from perdure.core.records import Record
from perdure.core.words import some
from perdure.data.spec import check_task_name
from perdure.ledger import Ledger
from perdure.ledger.runs import unfinished
from perdure.workflows.session import Session


@dataclass(frozen=True)
class RenamedTask(Record):
    """A task and its alias.

    Args:
        task: The name under which it was learned; ids and records have this one.
        before: The name under which people saw it until now.
        now: The name under which they see it from now on.
        already: Whether it was called so before; nothing is changed then.
    """

    task: str
    before: str
    now: str
    already: bool


def rename_task(session: Session, old: str, new: str) -> RenamedTask:
    """Give a task an alias; with the name under which it was learned the alias is removed.

    Args:
        session: Of the workspace.
        old: Name or alias of a task that some entry or the candidate knows.
        new: The name under which people are to see it.

    Raises:
        Busy: Another process writes to the workspace.
        NotFound: No entry knows the task.
        BadInput: No task can be called so, or the new name is that of another task, of a ref, or of a task whose learn was
            stopped.
    """
    with session.writing():
        ledger = session.ledger
        task, known = ledger.task_name(old), ledger.every_task()
        if task not in known:
            named = some(sorted(map(ledger.shown_name, known))) if known else "none yet"
            raise NotFound(f"no task {quoted(old)} is known in this workspace; known are {named}")
        before = ledger.shown_name(task)
        if new == before:
            return RenamedTask(task, before, new, already=True)
        if new != task:
            _refuse(ledger, new, known)
        others = {name: alias for name, alias in ledger.aliases.items() if name != task}
        ledger.configure(aliases={**others, **({task: new} if new != task else {})})
    return RenamedTask(task, before, new, already=False)


def _refuse(ledger: Ledger, new: str, known: set[str]) -> None:
    """Refuse a name that cannot be a task's, or that names something else."""
    try:
        check_task_name(new)
    except ValueError as error:
        raise BadInput(f"no task can be called {quoted(new)}: a name {error}") from error
    if new in known:
        alias = ledger.aliases.get(new)
        raise BadInput(f"{new} is a task{f', shown as {alias}' if alias else ''}; choose another name")
    if (other := ledger.task_name(new)) != new:
        raise BadInput(f"{new} is the alias of task {other}; choose another name, or rename {new} first")
    if any(guard.name == new for guard in ledger.guards()):
        raise BadInput(f"{new} is a guard of the workspace; choose another name")
    if new in ledger.refs() or new == "candidate":
        raise BadInput(f"{new} is a ref; choose another name")
    if any(run.task == new for run in unfinished(ledger.root)):
        raise BadInput(
            f"a learn of task {new} was stopped and can go on under this name; choose another one, or let it end"
        )
