"""Train a merged adapter towards the answers of the adapters before, on the rows at hand.

There is one model in memory: each view answers all its rows once, before the first update, and the merged adapter is then trained
on these answers by the learner and the loop of a learn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.canonical import content_hash
from perdure.core.clock import Clock
from perdure.core.errors import BadInput
from perdure.core.plan import AdapterPlan
from perdure.core.progress import Tick
from perdure.core.recipe import Recipe, build_recipe
from perdure.core.rows import Row
from perdure.core.slots import EDITS, SKILL
from perdure.core.stages import Stages
from perdure.data.sources import Data
from perdure.ledger import Entry, Ledger, row_key
from perdure.ledger.runs import CHECKPOINT, note
from perdure.workflows.learn.encoder import RowEncoder
from perdure.workflows.learn.kept_rows import given_rows
from perdure.workflows.learn.remember import LedgerMemory
from perdure.workflows.learn.train import CLOSE_OFF, host
from perdure.workflows.session import Session
from perdure.workflows.slots import SlotTensors

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.core.step import TopK

NAME = "merge"  # of the recipe, and of the task as far as the loop names one
TEACHER = "views"
OWN_SETTINGS: dict[str, Any] = {
    "train": "lora",
    "max_steps": -1,
    "data": "task",
    "start": "head",
    "keep": "last",
    "eval_steps": 0,
    "early_stopping_patience": 0,
    "report_to": "none",
}


@dataclass(frozen=True)
class Distilled:
    """A merged adapter that was trained.

    Args:
        tensors: Its slot.
        rows: Rows that it was trained on.
        loss: The first and the last logged loss of its training on the rows' own answers, in nats a label token.
        folder: Of its checkpoint; the caller removes it once the entry is stored.
    """

    tensors: "Mapping[str, Tensor]"
    rows: int
    loss: tuple[float, ...]
    folder: Path


def rows_at_hand(
    session: Session, head: Entry, tasks: Sequence[str], given: Mapping[str, Sequence[Data]]
) -> dict[str, list[Row]]:
    """Return the rows of each task that can be trained on again.

    They are those of the files that are given for it, else those in memory, else its train rows where their text is stored.

    Rows that ask what a test row of one of the tasks asks are left out.

    Args:
        session: Of the workspace.
        head: The entry that is merged.
        tasks: The tasks.
        given: Files with rows of tasks, by task.

    Raises:
        BadInput: A task has none, or a file has rows that are not of its task.
    """
    if unknown := sorted(given.keys() - set(tasks)):
        raise BadInput(f"rows are given for {unknown[0]}, which does not go through the merged adapter; leave them out")
    known = {task: session.task(task, head) for task in tasks}
    asked = {row.question for task in known.values() for row in task.test}
    rows: dict[str, list[Row]] = {task: [] for task in tasks}
    for own in LedgerMemory.at(session.ledger, head).of("replay"):
        if own.task in rows and own.task not in given and own.row.question not in asked:
            rows[own.task].append(own.row)
    for task, files in given.items():
        versions = [one for one in session.history(head) if one.name == task]
        rows[task] = [row for row in given_rows(session, versions, task, files).values() if row.question not in asked]
    for task, found in rows.items():
        if not found:
            found += [row for row in known[task].train if row.question not in asked]
    if missing := [session.ledger.shown_name(task) for task, found in rows.items() if not found]:
        raise BadInput(
            f"no row of {', '.join(missing)} is stored, and distillation trains on rows: a merge can be compressed without loss "
            f"only where rows of its tasks are at hand. Give the file that it was learned from with --rows {missing[0]}=FILE, or "
            "leave --distill-epochs out; a method that remembers rows (replay) and 'perdure init --keep-rows all' store them"
        )
    return rows


def recipe_of(ledger: Ledger, head: Entry, tasks: Sequence[str], shape: Mapping[str, Any], epochs: int) -> Recipe:
    """Return the recipe of the distillation: the settings of the last learn among the tasks, and the teachers' answers.

    Args:
        ledger: Of the workspace.
        head: The entry that is merged.
        tasks: The tasks.
        shape: Rank, scale and modules of the merged adapter.
        epochs: Passes over the rows.
    """
    from perdure.methods.registry import all_methods

    learned = next(one for one in ledger.ancestors(head) if one.kind == "learn" and one.task in tasks)
    method = {"distill": {"teacher": TEACHER, "on": "new"}}
    own = {**OWN_SETTINGS, **shape, "num_train_epochs": epochs, "name": NAME, "methods": method}
    return build_recipe({**(learned.recipe or {}), **own}, all_methods())


def distill(
    session: Session,
    head: Entry,
    recipe: Recipe,
    rows: Mapping[str, Sequence[Row]],
    merged: "Mapping[str, Tensor]",
    beneath: Sequence[str],
    *,
    key: object,
    tick: Tick | None,
    stop: Callable[[], str | None],
) -> Distilled:
    """Return the merged adapter after training, with the views at `head` as teachers.

    The same call again goes on from its checkpoint, to the same bits.

    Args:
        session: Of the workspace; the caller holds its write lock.
        head: The entry that is merged.
        recipe: See `recipe_of`.
        rows: Rows of each task.
        merged: Tensors of the merged adapter.
        beneath: Slots that stay frozen under it.
        key: What `merged` was made from; its checkpoint is found again by it.
        tick: Called with (what, done, total) as work goes on.
        stop: Returns the name of a signal that asks to stop.

    Raises:
        Interrupted: A signal came; a checkpoint is on disk.
        Diverged: A loss is not finite.

    Cost: one forward of every row through its task's view, then the updates.
    """
    from perdure.train.checkpoint import Keeper
    from perdure.train.learner import Learner
    from perdure.train.task import TaskInputs

    runtime, settings, ledger = session.runtime, recipe.settings, session.ledger
    stages = Stages(Clock(), tick)
    encoder = RowEncoder(session.tokenizer, settings.max_length, settings.train_on)
    in_order = [row for task in sorted(rows) for row in rows[task]]
    columns = {
        column.name: _answers(session, head, rows, column.top_k, encoder, stages) for column in recipe.columns("new")
    }
    slots: Mapping[str, Any] = {SKILL: merged, **SlotTensors(ledger, {n: ledger.slots(head)[n] for n in beneath})}
    params = runtime.begin(AdapterPlan(SKILL, tuple(beneath)), slots, settings, session.seed, NAME)
    inputs = TaskInputs(NAME, encoder.all(in_order), columns=columns, seed=session.seed)
    trainable = runtime.trainable(
        params, gradient_checkpointing=settings.gradient_checkpointing, packing=settings.packing
    )
    learner = Learner(trainable, recipe, inputs, stages=stages)
    made = content_hash([head.id, recipe.to_json(), *map(row_key, in_order), session.seed, key])
    path = ledger.root / "runs" / made[:16] / CHECKPOINT
    note(path.parent, NAME, head.id)
    clock = Clock()
    clock.start()
    keeper = Keeper(path, learner, stop=stop, clock=clock)
    host(settings.host)(learner, keeper, partial(_progress, tick, keeper))
    runtime.freeze()
    if clock.read()["seconds"] > CLOSE_OFF:
        keeper.save(None, learner.total)
    losses = [loss for _, loss in learner.record.loss]
    return Distilled(runtime.trained(), len(in_order), (losses[0], losses[-1]) if losses else (), path.parent)


def _answers(
    session: Session,
    head: Entry,
    rows: Mapping[str, Sequence[Row]],
    k: int,
    encoder: RowEncoder,
    stages: Stages,
) -> "list[TopK]":
    """Return the distribution of each task's view on its rows, task after task; edits are in no teacher."""
    ledger, answers = session.ledger, []
    with stages.stage("teachers", "distributions of the adapters before"):
        for task in sorted(rows):
            view = {name: found for name, found in ledger.view(head, task).items() if name != EDITS}
            session.load_slots(view)
            answers += session.runtime.top_k(encoder.all(rows[task]), k, stages.show)
    return answers


def _progress(tick: Tick | None, keeper: Any, done: int, total: int, loss: float) -> None:
    if tick:
        tick(f"distilling, loss {loss:.3f}, {keeper.speed:,.0f} tokens/s", done, total)
