"""Revert: a new entry without a fact, without the facts of an edit, or without a task."""

from typing import Any

from perdure.core.errors import NotFound
from perdure.core.progress import Tick
from perdure.workflows.edit.revert import revert as revert_facts
from perdure.workflows.learn.revert_task import revert_task, was_taken_out
from perdure.workflows.session import Session


def revert(session: Session, what: str, *, resolve: bool = False, tick: Tick | None = None) -> dict[str, Any]:
    """Take a task or facts out of head; see `learn.revert_task` and `edit.revert`.

    Args:
        session: Of the workspace.
        what: A task that head knows (or the entry that learned it), a fact, or an edit entry.
        resolve: Of facts: solve the others again as if these had never been made.
        tick: Called with (what, done, total) as work goes on.

    Raises:
        NotFound: Nothing has this name.
        BadInput: It cannot be separated from the rest, or a candidate is waiting.
    """
    ledger = session.ledger
    head = ledger.resolve("head")
    try:
        entry = ledger.resolve(what)
    except NotFound:
        entry = None
    learned = entry.task if entry is not None and entry.kind == "learn" and entry.task else None
    task = what if what in head.tasks or was_taken_out(ledger, head, what) else learned
    if task is not None and (task in head.tasks or was_taken_out(ledger, head, task)):
        return revert_task(session, task, tick)
    return revert_facts(session, what, resolve=resolve, tick=tick)
