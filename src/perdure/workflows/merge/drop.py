"""Drop tasks' own adapters that an earlier merge added to what all tasks share, judged by a gate and recorded as an entry."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.core.errors import BadInput, NotFound
from perdure.core.progress import Tick
from perdure.core.recipe import nearest
from perdure.core.slots import SKILL, own_slots, task_slot
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Gate, MergeNote
from perdure.ledger.records.merge import DROP
from perdure.workflows.author import sign
from perdure.workflows.guards.attach import Mode
from perdure.workflows.guards.judge import mode_for
from perdure.workflows.merge.draft import draft
from perdure.workflows.merge.judge import Judged, judge
from perdure.workflows.merge.outcome import MergeResult, record_merge, reporting, result_of
from perdure.workflows.merge.sources import learned_since
from perdure.workflows.merges import own_merge_of
from perdure.workflows.session import Session
from perdure.workflows.signals import stop_signal


@dataclass(frozen=True)
class _Planned:
    """A drop that was checked.

    Args:
        head: The entry that it is made on.
        tasks: The tasks whose own adapters go, sorted.
        notices: What the user should know.
    """

    head: Entry
    tasks: tuple[str, ...]
    notices: tuple[str, ...]


def drop_merged(
    session: Session,
    tasks: Sequence[str] = (),
    *,
    gate: Gate | None = Gate(),
    tick: Tick | None = None,
    message: str | None = None,
    guards: Mode | None = None,
) -> MergeResult:
    """Record an entry without the own adapters of tasks that a merge in force has added to what all tasks share.

    Requests for these tasks go through what all tasks share from then on. The gate compares each task's score through its own
    adapter with its score there. Where it fails, head stays and the entry becomes the candidate. Nothing is computed but scores,
    and a rollback brings the adapters back.

    Args:
        session: Of the workspace.
        tasks: Tasks whose own adapters go; empty for all that were merged.
        gate: What may not be lost; None accepts every drop.
        tick: Called with (what, done, total) as work goes on.
        message: Text to store with the entry and its author.
        guards: What a guard that fell does; see `learn.learn`.

    Raises:
        Busy: Another process writes to the workspace.
        Interrupted: A signal came.
        BadInput: There is nothing to drop, the adapter of a task is in no merge, or a candidate is waiting.
        NotFound: Head does not know a task that was named.
    """
    signature, began = sign(message), time.perf_counter()
    with session.writing(), stop_signal() as stop:
        report = reporting(tick, stop)
        planned = _plan(session, [session.ledger.task_name(name) for name in tasks])
        mode = mode_for(session.ledger, guards, gate)
        gone = [name for task in planned.tasks for name in own_slots(session.ledger.slots(planned.head), task)]
        about = {"how": DROP, "adapters": {}, "drop": True, "tasks": list(planned.tasks)}
        entry, carried, notices = draft(session, planned.head, dict.fromkeys(sorted(gone)), about, report)
        judged = judge(session, entry, planned.head, planned.tasks, carried, gate=gate, mode=mode, tick=report)
        note = _note(session.ledger, planned, judged, (*planned.notices, *notices))
        record_merge(session.ledger, entry, note, judged, carried, signature, mode)
    return result_of(entry, note, judged, began)


def _plan(session: Session, named: Sequence[str]) -> _Planned:
    """Check everything that can be checked before a model is loaded."""
    ledger = session.ledger
    session.refuse_candidate()
    head = ledger.resolve("head")
    slots = ledger.slots(head)
    merged = {
        name: made for name in head.tasks if task_slot(name) in slots and (made := own_merge_of(ledger, head, name))
    }
    for name in named:
        if name not in head.tasks:
            raise NotFound(f"no task {name!r} is known at head{nearest(name, sorted(head.tasks))}")
        if task_slot(name) not in slots:
            raise BadInput(f"task {name} has no adapter of its own that could be dropped; leave it out")
        if name not in merged:
            raise BadInput(
                f"the adapter of task {name} is in no merge, and to drop it would lose what it learned; 'perdure merge --rank R "
                f"--tasks {name} --drop' merges it first"
            )
    if not merged:
        raise BadInput(
            "no merge in force has the adapter that a task has of its own, so there is nothing to drop; 'perdure merge --rank R "
            "--drop' merges and drops in one"
        )
    tasks = tuple(sorted(name for name in merged if not named or name in named))
    notices = tuple(
        f"{ledger.shown_name(name)} was learned again since merge {merged[name].id[:12]}, which does not have what it learned "
        "then"
        for name in tasks
        if learned_since(merged[name], name, slots)
    )
    return _Planned(head, tasks, notices)


def _note(ledger: Ledger, planned: _Planned, judged: Judged, notices: tuple[str, ...]) -> MergeNote:
    """Return what the entry notes of itself."""
    from perdure.maths.low_rank import from_tensors

    shared = from_tensors(ledger.objects.get(ledger.slots(planned.head)[SKILL]))
    return MergeNote(
        rank=max(patch.rank for patch in shared.values()),
        how=DROP,
        tasks=planned.tasks,
        kept=(),
        error=0.0,
        before={name: scored.score.summary for name, scored in judged.before.items()},
        scores={name: scored.score.summary for name, scored in judged.scores.items()},
        warnings=(*notices, *judged.notices),
    )
