"""Revert: a new entry without a fact, without the facts of an edit, or without a task."""

from typing import Any

from perdure.core.errors import NotFound
from perdure.core.progress import Tick
from perdure.ledger import Entry, Ledger
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
    if _is_task(ledger, head, what):  # first, as a name may begin like an entry
        return revert_task(session, what, tick)
    try:
        entry = ledger.resolve(what)
    except NotFound:
        entry = None
    if entry is not None and entry.kind == "learn" and entry.task and _is_task(ledger, head, entry.task):
        return revert_task(session, entry.task, tick)
    return revert_facts(session, what, resolve=resolve, tick=tick)


def _is_task(ledger: Ledger, head: Entry, name: str) -> bool:
    return name in head.tasks or was_taken_out(ledger, head, name)
