"""Take a task out of head as if it had never been learned; possible if its slots are its own."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from perdure.core.errors import BadInput, NotFound
from perdure.core.progress import Tick
from perdure.core.records import Record, omitted
from perdure.core.slots import EDITS, slots_of_task, task_slot
from perdure.evaluate.routing import RoutingAccuracy
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import ScoreSummary, Verdict
from perdure.ledger.records.revert_task import TaskRevertNote
from perdure.workflows.author import sign
from perdure.workflows.edit.carry import carry
from perdure.workflows.fact_records import NOTE
from perdure.workflows.inspect.score_views import taken_out
from perdure.workflows.learn.influence import Influence, influence
from perdure.workflows.learn.remember import LedgerMemory, states_at
from perdure.workflows.merges import begins_anew, merges_of
from perdure.workflows.rescore import Rescore, rescore
from perdure.workflows.session import Session


@dataclass(frozen=True)
class TaskRevertResult(Record):
    """What a revert of a task did.

    Args:
        entry: The entry without the task; an earlier one, if the task was taken out before.
        task: Name of the task.
        rows: Number of its rows that left memory.
        before: Score of each other task before the revert.
        scores: Score of each other task after it.
        warnings: What the user should know.
        already: Whether the task was taken out before; nothing is recorded then.
        seconds: Wall time.
        gate: What a gate says of each other task's change; None where there is nothing to compare.
        removed: The slots that the entry took away.
        routed: Score of each other task where no request names it; None without a router.
        routing: How many test rows found their task; None without a router.
    """

    entry: str
    task: str
    rows: int
    before: Mapping[str, ScoreSummary]
    scores: Mapping[str, ScoreSummary]
    warnings: tuple[str, ...]
    already: bool
    seconds: float
    gate: Verdict | None = None
    removed: tuple[str, ...] = ()
    routed: Mapping[str, ScoreSummary] | None = omitted(None)
    routing: RoutingAccuracy | None = omitted(None)


def revert_task(
    session: Session, task: str, tick: Tick | None = None, rescoring: Rescore = Rescore()
) -> TaskRevertResult:
    """Record an entry without a task: its slots, its rows in memory and its name are gone, everything else stays.

    What other tasks see changes only where the task's adapter was one of a sum; their scores before and after are returned. A
    task with an adapter of its own that was learned on top of that sum keeps what lies under it, and a warning names it. A task
    that was taken out before stays out: nothing is recorded then.

    Args:
        session: Of the workspace.
        task: A task that head knows, or that was taken out of it.
        tick: Called with (what, done, total) as work goes on.
        rescoring: What is scored without the task.

    Raises:
        NotFound: Head never knew the task.
        BadInput: The task trained weights that other tasks go through too, or a candidate is waiting.
    """
    with session.writing():
        began, ledger = time.perf_counter(), session.ledger
        parent = ledger.resolve("head")
        if past := taken_out_before(ledger, parent, task):
            noted = ledger.note(past.id, "revert", TaskRevertNote) or TaskRevertNote(task, 0, {}, {}, ())
            return _result(past, noted, began, already=True)
        session.refuse_candidate()
        _refuse_shared(ledger, parent, task)
        slots: dict[str, str | None] = dict.fromkeys(slots_of_task(ledger.slots(parent), task))
        carried = carry(session, parent, slots, tick)
        if carried and carried.slot:
            slots[EDITS] = carried.slot
        without = entry_without(session, parent, task)
        entry = replace(without.entry, slots=slots)
        rescored, left = rescore(session, entry, rescoring, tick), influence(ledger, entry, task)
        note = TaskRevertNote(
            task=task,
            rows=without.rows,
            before=rescored.before,
            scores=rescored.scores,
            warnings=(
                *_holding(left, task),
                *_influenced(ledger, parent, left, task),
                *_merged(ledger, parent, task),
                *(carried.warnings if carried else ()),
                *rescored.warnings,
            ),
        )
        notes: dict[str, object] = {
            "revert": note.to_json(),
            **rescored.notes,
            **sign().notes,
            **({NOTE: carried.note.to_json()} if carried else {}),
        }
        ledger.record(entry, notes, why=f"revert {task}")
        done = _result(entry, note, began, already=False)
        return replace(done, gate=rescored.verdict, routed=rescored.routed or None, routing=rescored.routing)


@dataclass(frozen=True)
class EntryWithout:
    """An entry that does not know a task, not recorded yet.

    Args:
        entry: The entry: every weight stays.
        rows: Number of rows of the task that left memory.
    """

    entry: Entry
    rows: int


def entry_without(session: Session, head: Entry, task: str, **data: str) -> EntryWithout:
    """Return the entry after `head` without a task: its name and its rows in memory are gone. Its memory is stored.

    Args:
        session: Of the workspace.
        head: The entry that knows the task.
        task: Name of the task.
        **data: What the entry says further of its data.
    """
    memory = LedgerMemory.at(session.ledger, head)
    rest = replace(memory, rows=[row for row in memory.rows if row.task != task])
    manifest, columns = rest.save(session.ledger)
    entry = Entry(
        parent=head.id,
        kind="revert",
        base=head.base,
        task=task,
        tasks={name: version for name, version in head.tasks.items() if name != task},
        data={"task": task, **data},
        seed=session.seed,
        memory=manifest,
        columns=columns,
        state=head.state,
    )
    return EntryWithout(entry, len(memory.rows) - len(rest.rows))


def taken_out_before(ledger: Ledger, head: Entry, task: str) -> Entry | None:
    """Return the entry that took a task out before; None where head knows the task.

    Raises:
        NotFound: Head never knew it.
    """
    past = taken_out(ledger, head, task)
    if past is None and task not in head.tasks:
        raise NotFound(f"no task {task!r} is known at head; 'perdure status' lists the tasks")
    return past


def _result(entry: Entry, note: TaskRevertNote, began: float, *, already: bool) -> TaskRevertResult:
    seconds = round(time.perf_counter() - began, 3)
    removed = tuple(sorted(name for name, slot in entry.slots.items() if slot is None))
    return TaskRevertResult(entry.id, **vars(note), already=already, seconds=seconds, removed=removed)


def _refuse_shared(ledger: Ledger, head: Entry, task: str) -> None:
    """Refuse a task that was learned, at any time, in slots that are not its own.

    Raises:
        BadInput: With the choices that exist.
    """
    merges = merges_of(ledger, head, task)
    if merges and task_slot(task) not in ledger.slots(head):
        name = merges[-1].id[:12]
        raise BadInput(
            f"the adapter of task {task} was merged with others (entry {name}), and cannot be taken out of the result; "
            f"'perdure rollback {name}~1' goes back to before the merge, where 'perdure revert {task}' takes it out"
        )
    for entry in ledger.ancestors(head):
        if (
            entry.kind == "learn"
            and entry.task == task
            and not {name for name, new in entry.slots.items() if new} - {EDITS}
            <= set(slots_of_task(entry.slots, task))
        ):
            name = entry.id[:12]
            if anew := _begun_anew(ledger, head, entry):
                kept = influence(ledger, head, task).holding
                rest = f"what {name} trained in {', '.join(kept)} alone" if kept else f"nothing that {name} trained"
                raise BadInput(
                    f"task {task} was learned in weights that all tasks share (entry {name}). Entry {anew.id[:12]} (learn "
                    f"{anew.task}) began these anew from the base model: head has {rest}, and what was learned since from rows "
                    f"of {task} in memory, which cannot be taken out alone. 'perdure rollback {name}~1' goes back to before it, "
                    "without all that came after"
                )
            raise BadInput(
                f"task {task} was learned in weights that other tasks go through too (entry {name}), and cannot be taken out "
                f"alone. 'perdure rollback {name}~1' goes back to before it, without all that came after; a task that may have "
                "to go is learned with a method that trains an adapter for each task: per_task, or a sum such as incremental"
            )


def is_separable(ledger: Ledger, head: Entry, task: str) -> bool:
    """Return whether a revert can take a task out of an entry that knows it."""
    try:
        _refuse_shared(ledger, head, task)
    except BadInput:
        return False
    return True


def _begun_anew(ledger: Ledger, head: Entry, learned: Entry) -> Entry | None:
    """Return the last entry after `learned` that began the weights that all tasks share anew, None without one."""
    for entry in ledger.ancestors(head):
        if entry.id == learned.id:
            return None
        if begins_anew(entry):
            return entry
    return None


def _influenced(ledger: Ledger, head: Entry, left: Influence, task: str) -> list[str]:
    """Name what is left of a task without its adapters: in weights that were trained on its rows, and in states of methods."""
    told = []
    replayed = [str(one.task) for one in left.others if one.task != task]
    if others := list(dict.fromkeys(replayed)):
        told.append(
            f"{' and '.join(others)} was trained on rows of {task} from memory too, which stays in the weights; where nothing of "
            f"{task} may be left, revert {' and '.join(others)} too, or learn it again"
        )
    first = next(one for one in reversed(ledger.ancestors(head)) if one.kind == "learn" and one.task == task)
    if head.state is not None and head.state != ledger.entry(str(first.parent)).state:
        names = " and ".join(sorted(states_at(ledger, head, "cpu")))
        told.append(f"the state that {names} measured on tasks, {task} among them, stays for the next learn")
    return told


def _merged(ledger: Ledger, head: Entry, task: str) -> list[str]:
    """Say that what all tasks share has the adapter of `task` too, where it was merged into that."""
    if not (merges := merges_of(ledger, head, task)):
        return []
    name = merges[-1].id[:12]  # the first one: before it, nothing that all tasks share has the adapter
    return [
        f"what all tasks share was merged from the adapter of {task} too (entry {name}) and keeps it; where nothing of "
        f"{task} may be left, 'perdure rollback {name}~1', revert {task} there, and merge again"
    ]


def _holding(left: Influence, task: str) -> list[str]:
    """Name the tasks that keep an adapter of `task`, or one that has it: under their own adapter, or as what that began from."""
    parts = sorted(
        {name.removesuffix("/repair").partition("/")[::2] for name in left.holding if name.startswith("task:")}
    )
    above = dict.fromkeys(owner.removeprefix("task:") for owner, beneath in parts if beneath)
    copies = dict.fromkeys(owner.removeprefix("task:") for owner, beneath in parts if not beneath)
    return [
        *(
            f"{other} was learned on top of the adapter of {task} and keeps it, so that its answers stay as they are; where "
            f"nothing of {task} may be left, revert {other} too, or learn it again with start: base"
            for other in above
        ),
        *(
            f"{other} was learned after {task} with start: nearest or shared, and may have begun as a copy of its adapter, or "
            f"of one that has it; where nothing of {task} may be left, revert {other} too, or learn it again with start: base"
            for other in copies
        ),
    ]
