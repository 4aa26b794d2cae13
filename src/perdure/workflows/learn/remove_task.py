"""Remove a task: from now on it is not replayed, scored or guarded. What the weights learned of it stays."""

import time
from dataclasses import dataclass, replace

from perdure.core.records import Record
from perdure.core.slots import MEASURED, adapters_of_task, measured_slot
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import TaskRevertNote
from perdure.workflows.author import sign
from perdure.workflows.inspect.score_views import task_order
from perdure.workflows.learn.revert_task import entry_without, taken_out_before
from perdure.workflows.session import Session


@dataclass(frozen=True)
class RemovedTask(Record):
    """A task that head does not know any more.

    Args:
        entry: The entry that removed it; an earlier one, if it was removed or reverted before.
        task: Its name.
        rows: Number of its rows that are not in memory any more.
        tasks: The tasks that head still knows.
        warnings: What the user should know.
        already: Whether head did not know it before; nothing is recorded then.
        seconds: Wall time.
    """

    entry: str
    task: str
    rows: int
    tasks: tuple[str, ...]
    warnings: tuple[str, ...]
    already: bool
    seconds: float


def remove_task(session: Session, task: str, message: str | None = None) -> RemovedTask:
    """Record an entry of kind revert that does not know a task: its name and its rows in memory are gone, every weight stays.

    Args:
        session: Of the workspace.
        task: A task that head knows, or that was removed before.
        message: What to note with the entry, beside its author.

    Raises:
        Busy: Another process writes to the workspace.
        NotFound: Head never knew the task.
        BadInput: A candidate is waiting.
    """
    signature, began = sign(message), time.perf_counter()
    task = session.ledger.task_name(task)
    with session.writing():
        ledger = session.ledger
        head = ledger.resolve("head")
        left = tuple(name for name in task_order(ledger, head) if name != task)
        if past := taken_out_before(ledger, head, task):
            return RemovedTask(past.id, task, 0, left, (), True, round(time.perf_counter() - began, 3))
        session.refuse_candidate()
        without = entry_without(session, head, task, weights="stay")
        measured = {measured_slot(slot, task) for slot in MEASURED} & ledger.slots(head).keys()
        entry = replace(without.entry, slots=dict.fromkeys(sorted(measured)))  # no request is sent to it any more
        rows, warnings = without.rows, _weights_stay(ledger, head, task)
        note = TaskRevertNote(task, rows, {}, {}, warnings)
        ledger.record(entry, {"revert": note, **signature.notes}, why=f"remove task {task}")
    return RemovedTask(entry.id, task, rows, left, warnings, False, round(time.perf_counter() - began, 3))


def _weights_stay(ledger: Ledger, head: Entry, task: str) -> tuple[str, ...]:
    """Return what the user should know of the weights that learned the task."""
    learned = next(e for e in reversed(ledger.ancestors(head)) if e.kind == "learn" and e.task == task)
    stays = f"what the weights learned of {task} stays in them"
    if adapters_of_task(ledger.slots(head), task):
        how = f"its adapter is stored on its own: 'perdure rollback {head.id[:12]}', then 'perdure revert {task}' takes it out"
    else:
        how = f"'perdure rollback {learned.id[:12]}~1' goes back to before it was learned, without all that came after"
    return (f"{stays}; {how}",)
