"""Tasks whose answers are programs: these run only where the user demands it, and a task is not scored without."""

from collections.abc import Mapping

from perdure.core.errors import BadInput
from perdure.data.task import TaskData
from perdure.evaluate.run_code import check_run_code, not_run
from perdure.evaluate.scorers import runs_programs
from perdure.ledger import Entry
from perdure.workflows.session import Session


def refuse_unrun(session: Session, task: TaskData) -> None:
    """Refuse to learn a task whose answers are programs where these do not run, before a model is loaded.

    Raises:
        BadInput: They may not run, or cannot run here.
    """
    if not runs_programs(task.scorer):
        return
    if session.run_code == "no":
        raise BadInput(
            f"task {session.ledger.shown_name(task.name)} is scored by running the programs that the model writes, which happens "
            "only where you demand it: add --run-code, or let a scorer compare their text (--scorer rouge_l)"
        )
    check_run_code(session.run_code)


def without_unrun(
    session: Session,
    entry: Entry,
    tasks: Mapping[str, TaskData],
    *,
    most: int | None = None,
    every: bool = False,
    shared: bool = False,
) -> tuple[dict[str, TaskData], tuple[str, ...]]:
    """Return the tasks that can be scored at an entry, and a notice of each other one.

    A task whose programs may not run is left out unless its score is stored.

    Args:
        session: Of the workspace.
        entry: An entry or a draft.
        tasks: The tasks by name.
        most: A smaller number of test rows; this and what follows as in `Session.score`.
        every: Score every test row.
        shared: Score what all tasks share.
    """
    left_out = [
        name
        for name, task in tasks.items()
        if _unrun(session, entry, task, len(task.test) if every else most, None if shared else name)
    ]
    notices = tuple(not_run(f"task {session.ledger.shown_name(name)}") for name in left_out)
    return {name: task for name, task in tasks.items() if name not in left_out}, notices


def _unrun(session: Session, entry: Entry, task: TaskData, rows: int | None, view: str | None) -> bool:
    """Return whether programs would have to run that may not."""
    if session.run_code != "no" or not runs_programs(task.scorer):
        return False
    ledger = session.ledger
    stored = ledger.score(ledger.seen(entry, view), task.version, task.scoring)
    return stored is None or stored.n < (rows or task.scored_rows)
