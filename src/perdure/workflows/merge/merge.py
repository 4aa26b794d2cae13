"""Merge: one adapter of bounded rank, made from the adapters in force, judged by a gate and recorded as an entry."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.core.keyed import keyed
from perdure.core.progress import Tick
from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.slots import SKILL, isolated_tasks
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Gate, MergeNote
from perdure.workflows.author import sign
from perdure.workflows.edit.carry import Carried
from perdure.workflows.guards.attach import Mode
from perdure.workflows.guards.judge import mode_for
from perdure.workflows.learn.scaled import times
from perdure.workflows.merge.distill import Distilled, distill, recipe_of, rows_at_hand
from perdure.workflows.merge.draft import draft
from perdure.workflows.merge.judge import Judged, judge
from perdure.workflows.merge.outcome import MergeResult, record_merge, reporting, result_of
from perdure.workflows.merge.request import MergeRequest
from perdure.workflows.merge.shape import Shape, shape_of
from perdure.workflows.merge.sources import Sources, objects_of, replaced_slots, sources
from perdure.workflows.session import Session
from perdure.workflows.signals import stop_signal

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.maths.low_rank import Patches
    from perdure.maths.merge import Merged


@dataclass(frozen=True)
class _Planned:
    """A merge that was checked.

    Args:
        head: The entry that it is made on.
        found: The slots.
        about: What the entry says of itself.
        tasks: The tasks that go through the merged adapter.
        rows: Rows to train on afterwards, by task; None where nothing is trained.
    """

    head: Entry
    found: Sources
    about: dict[str, Any]
    tasks: tuple[str, ...]
    rows: Mapping[str, list[Row]] | None


def merge(
    session: Session,
    request: MergeRequest,
    *,
    gate: Gate | None = Gate(),
    tick: Tick | None = None,
    message: str | None = None,
    guards: Mode | None = None,
) -> MergeResult:
    """Merge adapters into the slot `skill`, and move head there unless the gate refuses it.

    Adapters of a sum are replaced, so that the function changes by the truncation alone where `how` is "svd". Adapters of single
    tasks stay, unless they are dropped, for requests that name their task or that a router sends to it, and the merged one serves
    all other requests. The gate compares each task's score at head with its score through the merged adapter. Where it fails,
    head stays and the entry becomes the candidate.

    Args:
        session: Of the workspace.
        request: What is merged, and how.
        gate: What may not be lost; None accepts every merge.
        tick: Called with (what, done, total) as work goes on.
        message: Text to store with the entry and its author.
        guards: What a guard that fell does; see `learn.learn`.

    Raises:
        Busy: Another process writes to the workspace.
        Interrupted: A signal came; a distillation goes on from its checkpoint.
        BadInput: There is nothing to merge, the request does not fit, no row is stored to distill on, or a candidate is waiting.
        NotFound: Head does not know a task that was named.
    """
    signature, began = sign(message), time.perf_counter()
    with session.writing(), stop_signal() as stop:
        report = reporting(tick, stop)
        planned = _plan(session, request.named(session.ledger))
        mode = mode_for(session.ledger, guards, gate)
        report("merging adapters", 0, 1)
        merged, shape = _merged(session, planned, request)
        report("merging adapters", 1, 1)
        recipe, distilled = _distilled(session, planned, request, merged, shape, tick, stop)
        entry, carried, notices = _draft(session, planned, request, merged, shape, (recipe, distilled), report)
        judged = judge(session, entry, planned.head, planned.tasks, carried, gate=gate, mode=mode, tick=report)
        note = _note(planned, request, merged, judged, distilled, notices)
        record_merge(session.ledger, entry, note, judged, carried, signature, mode)
        if distilled:
            shutil.rmtree(distilled.folder, ignore_errors=True)
    return result_of(entry, note, judged, began)


def _plan(session: Session, request: MergeRequest) -> _Planned:
    """Check everything that can be checked before a model is loaded."""
    ledger = session.ledger
    session.refuse_candidate()
    head = ledger.resolve("head")
    found, slots = sources(ledger, head, request), ledger.slots(head)
    apart = {*isolated_tasks(slots), *ledger.labelled_by(head)}
    through = {*found.adapters, *(task for task in head.tasks if task not in apart)}
    tasks = tuple(task for task in head.tasks if task in through)
    about = {
        "how": request.how,
        "rank": request.rank,
        "adapters": {task: objects_of(task, slots) for task in found.adapters},
        "weights": {task: float(request.weights.get(task, 1.0)) for task in found.adapters},
        "density": request.kept_share,
        "drop": request.drop,
        "distill_epochs": request.distill_epochs,
    }
    rows = rows_at_hand(session, head, tasks, request.rows) if request.distill_epochs else None
    return _Planned(head, found, about, tasks, rows)


def _merged(session: Session, planned: _Planned, request: MergeRequest) -> "tuple[Merged, Shape]":
    """Return the merged adapter, and the settings by which a learn goes on with it."""
    import torch

    from perdure.maths.low_rank import combine, from_tensors
    from perdure.maths.merge import merge as merge_patches

    found, ledger = planned.found, session.ledger
    adapters = {}
    for task, names in found.adapters.items():
        parts = [_read(ledger, planned, name) for name in names]
        if one := found.copied.get(task):
            parts.append(times(from_tensors(ledger.objects.get(one.content)), -one.share))
        adapters[task] = combine(parts)
    common = combine([_read(ledger, planned, name) for name in found.common])

    def draw(task: str, module: str, shape: tuple[int, ...]) -> "Tensor":
        return torch.from_numpy(keyed(session.seed, "dare", task, module).random(shape))

    scales = {patch.scale for part in (*adapters.values(), common) for patch in part.values()}
    merged = merge_patches(
        adapters,
        request.how,
        request.rank,
        planned.about["weights"],
        density=request.kept_share,
        draw=draw,
        common=common,
        scale=scales.pop() if len(scales) == 1 else 1.0,
    )
    written = [name for names in (*found.adapters.values(), found.common) for name in names]
    return merged, shape_of(ledger, planned.head, written, merged.patches)


def _read(ledger: Ledger, planned: _Planned, name: str) -> "Patches":
    from perdure.maths.low_rank import from_tensors

    return from_tensors(ledger.objects.get(ledger.slots(planned.head)[name]))


def _distilled(
    session: Session,
    planned: _Planned,
    request: MergeRequest,
    merged: "Merged",
    shape: Shape,
    tick: Tick | None,
    stop: Callable[[], str | None],
) -> tuple[Recipe | None, Distilled | None]:
    """Return the recipe by which the merged adapter was trained, and what came of it; None where nothing is trained."""
    from perdure.maths.low_rank import to_tensors

    if planned.rows is None:
        return None, None
    recipe = recipe_of(session.ledger, planned.head, planned.tasks, shape, request.distill_epochs)
    made = distill(
        session,
        planned.head,
        recipe,
        planned.rows,
        to_tensors(merged.patches),
        planned.found.beneath,
        key=planned.about,
        tick=tick,
        stop=stop,
    )
    return recipe, made


def _draft(
    session: Session,
    planned: _Planned,
    request: MergeRequest,
    merged: "Merged",
    shape: Shape,
    trained: tuple[Recipe | None, Distilled | None],
    tick: Tick,
) -> tuple[Entry, Carried | None, tuple[str, ...]]:
    """Store the merged adapter and the facts on it; return the entry, the facts and what the user should know."""
    from perdure.maths.low_rank import to_tensors

    ledger, head = session.ledger, planned.head
    recipe, distilled = trained
    tensors = distilled.tensors if distilled else to_tensors(merged.patches)
    slots = {**replaced_slots(ledger, head, planned.found, request.drop), SKILL: ledger.objects.put(tensors)}
    entry, carried, notices = draft(session, head, slots, {**planned.about, "shape": shape}, tick, recipe)
    return entry, carried, (*planned.found.notices, *notices)


def _note(
    planned: _Planned,
    request: MergeRequest,
    merged: "Merged",
    judged: Judged,
    distilled: Distilled | None,
    notices: tuple[str, ...],
) -> MergeNote:
    """Return what the entry notes of itself."""
    rank = max((patch.rank for patch in merged.patches.values()), default=0)
    return MergeNote(
        rank=rank,
        how=request.how,
        tasks=planned.found.added,
        kept=() if request.drop else planned.found.own,
        error=merged.error,
        before={name: scored.score.summary for name, scored in judged.before.items()},
        scores={name: scored.score.summary for name, scored in judged.scores.items()},
        warnings=(*notices, *judged.notices),
        angle=merged.angle,
        rows=distilled.rows if distilled else 0,
        loss=distilled.loss if distilled else (),
    )
