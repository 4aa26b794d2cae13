"""Plan: what a learn would do, with data read and checked before a model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perdure.core.plan import AdapterPlan
from perdure.core.progress import Tick
from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.slots import ROUTE, measured_slot, task_slot
from perdure.data.columns import listed
from perdure.data.encode import Encoded
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.train.planned_updates import count_updates
from perdure.workflows.guards.attach import refuse_guard_name
from perdure.workflows.learn.adapter import is_first, planned_adapter, usable_slots
from perdure.workflows.learn.ahead import (
    check_recipe,
    check_rows,
    check_sizes,
    check_teachers,
    must_recompute,
    untrained,
)
from perdure.workflows.learn.cautions import cautions
from perdure.workflows.learn.encoder import RowEncoder
from perdure.workflows.learn.general_rows import general_rows, rehearsed_before
from perdure.workflows.learn.kept_rows import keeps_all, old_rows
from perdure.workflows.learn.labels import check_labels, uncounted
from perdure.workflows.learn.read_data import read_data
from perdure.workflows.learn.request import Request
from perdure.workflows.learn.shape import in_shape_of_head
from perdure.workflows.learn.training_rows import TrainingRows, training_rows
from perdure.workflows.session import Session


@dataclass(frozen=True)
class Plan:
    """A learn that was checked and not begun.

    Args:
        task: The new task version.
        recipe: How it is learned; its max_length is at most what the model has positions for.
        parent: The entry it starts from.
        known: The task's version at the parent, if this is an update.
        general: General instruction rows, if the task names some.
        training: The rows to train on (those of older tasks too, if the recipe trains on them again), and the hold-out.
        slots: Object hash of each slot that training may go on from or lie over; see `adapter.usable_slots`.
        adapter: Where the adapter ends that is trained, and what lies under it; None where every weight is, or none.
        notices: What the user should know: of the data (see `TaskData`), rows dropped, methods without work.
        encoder: Turns rows into tokens; the rows that were checked are tokenised already.
        asked: The recipe as it was asked for, before it took the shape of head's adapter.
        recompute: Whether blocks compute their activations again although the recipe does not say so, as they do not fit.
    """

    task: TaskData
    recipe: Recipe
    parent: Entry
    known: TaskData | None
    general: tuple[Row, ...]
    training: TrainingRows
    notices: tuple[str, ...]
    slots: Mapping[str, str]
    adapter: AdapterPlan | None
    encoder: RowEncoder = field(repr=False, compare=False)
    asked: Recipe
    recompute: bool = False

    @property
    def encoded(self) -> tuple[Encoded, ...]:
        """The task's train rows as tokens."""
        return self.encoder.all(self.task.train)

    @property
    def updates(self) -> int:
        """Updates of the whole learn."""
        return count_updates(len(self.training.rows), self.recipe.settings)

    @property
    def continued(self) -> Entry | None:
        """The entry whose adapter and method state training continues; None if training starts from the base."""
        return None if self.recipe.settings.start == "base" else self.parent

    @property
    def first(self) -> bool:
        """Whether what trains begins on the base model alone: as far as these weights know, no task went before."""
        return is_first(self.slots, self.adapter)

    @property
    def isolated(self) -> bool:
        """Whether the task trains an adapter of its own, that no other task goes through."""
        return self.adapter is not None and self.adapter.slot == task_slot(self.task.name)


def plan(session: Session, request: Request, tick: Tick | None = None) -> Plan:
    """Read and check everything that can be checked before a model is loaded.

    Only general rows that the base model writes itself need a model, once for all workspaces.

    Args:
        session: Of the workspace.
        request: What is to be learned, and how.
        tick: Called with (what, done, total) while general rows are written.

    Raises:
        BadInput: The data cannot be used, a test row leaks, rows that the recipe trains on are neither stored nor given, or a
            candidate is waiting.
        BadSpec: A setting is not valid, or more than model and machine have.
    """
    from perdure.bridges.models import load_tokenizer

    ledger, recipe = session.ledger, request.recipe
    request, parent = request.named(ledger), ledger.resolve("head")
    session.refuse_candidate()
    refuse_guard_name(ledger, request.name)
    recipe, shaped = in_shape_of_head(session, parent, recipe, request.name)
    check_recipe(session, parent, recipe, request.name)
    read = read_data(session, parent, request)
    task = read.task
    check_labels(task, recipe)
    general, notices = general_rows(session, parent, task, recipe, tick)
    old = old_rows(session, parent, task, recipe, request.rows)
    check_teachers(session, recipe)
    recipe = _for_model(session, recipe)
    settings = recipe.settings
    tokenizer = load_tokenizer(session.base_folder)
    encoder = RowEncoder(tokenizer, settings.max_length, settings.train_on, by_answer=not recipe.trains)
    doubts = check_rows(session, task, general, encoder)
    encoded = encoder.all(task.train)
    check_sizes(session, recipe, encoded)
    large = must_recompute(session, recipe, encoded)
    slots = usable_slots(ledger.slots(parent), recipe, task.name)
    adapter = planned_adapter(slots, recipe, task.name, session.seed)
    training = training_rows(task, recipe, old, first=is_first(slots, adapter), seed=session.seed)
    if not recipe.trains:
        training = replace(training, rows=uncounted(ledger, parent, task, training.rows, slots))
    notices = [
        *read.notices,
        *shaped,
        *_without_work(recipe),
        *notices,
        *rehearsed_before(ledger, parent, task),
        *_not_stored(session, task, recipe),
        *untrained(session, parent, recipe),
        *_rate(session, recipe),
        *_unrouted(ledger, parent, task.name, recipe),
        *([large] if large else []),
        *doubts,
        *cautions(task, read.known, len(training.rows), recipe, request.gate, ledger.shown_name(task.name)),
    ]
    return Plan(
        task,
        recipe,
        parent,
        read.known,
        general,
        training,
        tuple(notices),
        slots,
        adapter,
        encoder,
        asked=request.recipe,
        recompute=large is not None,
    )


def _for_model(session: Session, recipe: Recipe) -> Recipe:
    """Return the recipe with rows no longer than the model has positions for."""
    from perdure.bridges.models import positions

    limit = positions(session.base_folder)
    if limit is None or recipe.settings.max_length <= limit:
        return recipe
    return replace(recipe, settings=recipe.settings.model_copy(update={"max_length": limit}))


def _rate(session: Session, recipe: Recipe) -> list[str]:
    from perdure.bridges.sizes import untuned_rate

    notice = untuned_rate(session.base_folder, recipe.settings)
    return [notice] if notice else []


def _unrouted(ledger: Ledger, parent: Entry, task: str, recipe: Recipe) -> list[str]:
    """Name the tasks that a router will not know beside those that it will."""
    slots = ledger.slots(parent)
    measured = any(method.slot == ROUTE for method in recipe.owners("measure"))
    known = {name for name in parent.tasks if measured_slot(ROUTE, name) in slots} - {task} | (
        {task} if measured else set()
    )
    others = {*parent.tasks, task} - known
    if not known or not others:
        return []
    return [
        f"a router will know {listed(sorted(map(ledger.shown_name, known)))}, and not "
        f"{listed(sorted(map(ledger.shown_name, others)))}: a request that names no task is sent to a task that it "
        "knows, or, where it is near none of these, answered by what all tasks share. Learn every task with a router (recipe "
        "isolated), or name the task of a request"
    ]


def _without_work(recipe: Recipe) -> list[str]:
    return [
        f"method {method} acts on rows of memory, and no method draws rows: add replay, or set methods.{method}.mix"
        for method in recipe.starved
    ]


def _not_stored(session: Session, task: TaskData, recipe: Recipe) -> list[str]:
    if recipe.settings.data != "all" or keeps_all(session.ledger, task):
        return []
    return [
        f"recipe {recipe.name} trains on the rows of every task, and those of {task.name} are not stored: its next learn needs "
        f"--rows {task.name}=FILE ('keep_rows: all' in a task file stores them)"
    ]
