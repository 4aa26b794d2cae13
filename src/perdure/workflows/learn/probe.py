"""Two updates of a learn and a batch of its test rows, run to see what the whole of it takes. Nothing is stored."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.progress import Tick
from perdure.train.planned_tokens import forward_tokens
from perdure.train.planned_updates import PlannedUpdates, padded_tokens, plan_updates
from perdure.train.validation import validated_updates
from perdure.workflows.learn.new_task_kl import base_on_new_task, new_task_kl
from perdure.workflows.learn.plan import Plan
from perdure.workflows.learn.prepare import gather
from perdure.workflows.learn.run import Run
from perdure.workflows.learn.scoring_time import scoring_seconds
from perdure.workflows.learn.train import host, start
from perdure.workflows.learn.training_rows import TrainingRows
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.train.learner import Learner

GENERAL, HELD_OUT = 64, 16  # general rows and validation rows of a probe, at most
STILL = {"learning_rate": 1e-12, "report_to": "none"}  # weights that hardly move, and no tracker


@dataclass(frozen=True)
class Probed:
    """What a probe measured.

    Args:
        train_seconds: Seconds of training that the whole learn takes.
        eval_seconds: Seconds of scoring that it takes.
        peak_mib: Most memory that the probe had; see `bridges.peak_memory`.
        tokens: Tokens that run forward in the whole learn, rows from memory included; see `train.planned_tokens`.
    """

    train_seconds: float
    eval_seconds: float
    peak_mib: int
    tokens: int


def probe(session: Session, planned: Plan, tick: Tick | None = None) -> Probed:
    """Return what a learn takes, from the last two updates of its host and a batch of test rows.

    Of a learn without updates, some rows are read instead.

    The first of the two has the usual number of tokens; the second has most of them, and gives peak and time. They run in the
    place of the last two updates, as what methods store has grown by then.

    Args:
        session: Of the workspace; the model is loaded, and another state of it is loaded afterwards.
        planned: The learn.
        tick: Called with (what, done, total).
    """
    import torch

    from perdure.bridges.models import choose_device
    from perdure.bridges.peak_memory import PeakMemory

    def progress(done: int) -> None:
        if tick:
            tick("measuring two updates", done, 2)

    peak = PeakMemory(choose_device(session.device))
    settings = planned.recipe.settings.model_copy(update=STILL)
    small = replace(planned, recipe=replace(planned.recipe, settings=settings), general=planned.general[:GENERAL])
    with tempfile.TemporaryDirectory(prefix="perdure-probe-") as folder, torch.random.fork_rng():
        run = Run(session, small, None, lambda: None, place=Path(folder))
        scoring = _scoring_seconds(run)
        training, tokens = _training(run, progress) if small.recipe.trains else (_measuring_seconds(run), 0)
    return Probed(training, scoring, peak.mib, tokens)


# ---- training


def _training(run: Run, tick: Any) -> tuple[float, int]:
    """Run two updates, settle, and return the seconds that all of it takes, and the tokens that run forward."""
    session, plan = run.session, run.plan
    rows = plan.training.rows
    lengths = [len(row) for row in plan.encoder.all(rows)]
    planned = plan_updates(lengths, plan.recipe.settings, session.seed, plan.task.name)
    sizes = [sum(padded_tokens(lengths, batch) for batch in update) for update in planned.updates]
    usual, largest = _usual(sizes), _largest(planned, lengths)
    chosen = sorted({i for update in (usual, largest) for batch in planned.updates[update] for i in batch})
    some = TrainingRows(tuple(rows[i] for i in chosen), plan.training.validation[:HELD_OUT])
    began = time.perf_counter()
    learner = start(run, gather(run, some, {}))
    _set_updates(learner, planned, chosen, usual, largest)
    learner.begin()
    tokens = forward_tokens(learner, planned, lengths)
    stamps = [time.perf_counter()]
    for_rows = stamps[0] - began + _loss_seconds(learner, run)
    first = max(learner.total - 2, 0)

    def progress(done: int, total: int, loss: float) -> None:
        stamps.append(time.perf_counter())
        tick(done - first)

    stamps[0] = time.perf_counter()
    host(plan.recipe.settings.host)(learner, _LastTwo(first, learner), progress)
    settling = time.perf_counter() - stamps[-1]
    session.runtime.freeze()
    if plan.recipe.owners("measure"):
        for_rows += settling
    updates = (stamps[-1] - stamps[-2]) / sizes[largest] * sum(sizes) + _validation_seconds(run, learner, planned)
    return updates + for_rows / len(chosen) * len(rows), tokens


def _measuring_seconds(run: Run) -> float:
    """Return the seconds in which a learn without updates reads all its rows, from those of some."""
    rows = run.plan.training.rows
    some = rows[:GENERAL]
    began = time.perf_counter()
    start(run, gather(run, TrainingRows(some, ()), {})).settle()
    return (time.perf_counter() - began) / len(some) * len(rows)


def _validation_seconds(run: Run, learner: "Learner", planned: PlannedUpdates) -> float:
    """Return the seconds of all validations, from one of some rows."""
    some, rows = learner.inputs.validation, run.plan.training.validation
    times = len(validated_updates(run.plan.recipe.settings, len(planned.updates), planned.epoch_ends))
    if not some or not times:
        return 0.0
    began = time.perf_counter()
    learner.inference.nll(some)
    return (time.perf_counter() - began) * times * len(rows) / len(some)


def _usual(sizes: Sequence[int]) -> int:
    """Return an update with the median number of tokens."""
    return sorted(range(len(sizes)), key=sizes.__getitem__)[len(sizes) // 2]


def _largest(planned: PlannedUpdates, lengths: Sequence[int]) -> int:
    """Return the update whose largest micro-batch has most tokens."""
    sizes = [max(padded_tokens(lengths, batch) for batch in update) for update in planned.updates]
    return max(range(len(sizes)), key=sizes.__getitem__)


def _set_updates(learner: "Learner", planned: PlannedUpdates, chosen: Sequence[int], usual: int, largest: int) -> None:
    """Give a learner of some rows as many updates as the learn of all rows has, the last one the largest."""
    place = {row: n for n, row in enumerate(chosen)}
    one, last = ([[place[i] for i in batch] for batch in planned.updates[update]] for update in (usual, largest))
    learner.updates = [one] * (len(planned.updates) - 1) + [last]
    learner.epoch_ends, learner.room, learner.validated = planned.epoch_ends, planned.room, ()


def _loss_seconds(learner: "Learner", run: Run) -> float:
    """Return the seconds of computing the losses of some rows as often as memory needs them."""
    recipe = run.plan.recipe
    times = sum(map(bool, (recipe.needs("nll_before"), recipe.needs("nll_after"))))
    began = time.perf_counter()
    for _ in range(times):
        learner.inference.nll(learner.inputs.rows)
    return time.perf_counter() - began


class _LastTwo:
    """Stands for a learn's checkpoint, so that a host begins before the last two updates; writes none.

    Args:
        first: The update to begin with.
        learner: What is learned.
    """

    def __init__(self, first: int, learner: "Learner"):
        self.first, self.learner = first, learner

    def resume(self, optimizer: Any) -> int:
        """Return the update to begin with."""
        return self.first

    def after(self, update: int, optimizer: Any) -> None:
        """Write nothing."""


# ---- scoring


def _scoring_seconds(run: Run) -> float:
    """Score a batch of the new task's longest test rows at head, and return what all the scoring of the learn takes.

    What older tasks take is what they took when they were scored last.
    """
    session, plan = run.session, run.plan
    ledger, task = session.ledger, plan.task
    states = {ledger.seen(ledger.resolve("base"), task.name), ledger.seen(plan.parent, task.name)}
    unknown = sum(ledger.score(state, task.version, task.scoring) is None for state in states)
    older = 0.0
    for name in plan.parent.tasks:
        other = session.task(name, plan.parent)
        stored = ledger.score(ledger.seen(plan.parent, name), other.version, other.scoring)
        older += stored.seconds if stored and name != task.name else 0.0
    on_new_task = _new_task_seconds(run)
    session.load(plan.parent, task.name)
    once = scoring_seconds(session, task, task.scored_rows)
    session.runtime.release()
    # and at the new entry, which a third of a forward a row labels
    return older + on_new_task + once * (unknown + plan.recipe.trains)


def _new_task_seconds(run: Run) -> float:
    """Return the seconds of the base's answers to the new task and of a distance from them; 0 where no learn asks for it."""
    session = run.session
    session.load(session.ledger.resolve("base"))
    began = time.perf_counter()
    asked = base_on_new_task(run)
    if asked is not None:
        new_task_kl(run, asked, session.ledger.resolve("base"))
    return time.perf_counter() - began
