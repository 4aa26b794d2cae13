"""Prepare a learn: score the new task, and turn rows and memory into tokens and teacher columns."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from perdure.core.recipe import Recipe
from perdure.core.slots import view_of
from perdure.core.words import counted
from perdure.data.encode import Encoded
from perdure.ledger import Ledger
from perdure.workflows.guards.leaks import guarded_questions
from perdure.workflows.known_rows import KnownRows
from perdure.workflows.learn import remember
from perdure.workflows.learn.new_task_kl import OnBase, base_on_new_task
from perdure.workflows.learn.plan import Plan
from perdure.workflows.learn.run import Run
from perdure.workflows.learn.training_rows import TrainingRows
from perdure.workflows.session import Scored

if TYPE_CHECKING:
    from perdure.core.step import TopK


@dataclass(frozen=True)
class Prepared:
    """What training starts from.

    Args:
        before: The new task's scores at "base" and at "head": transfer needs both.
        rows: The rows to train on, as tokens.
        validation: Rows that choose the weights, as tokens.
        memory: What may be drawn.
        columns: The values that other models compute for the rows to train on, by column.
        tests: Questions that a test row of the new task or of head's history asks, among those of the rows at hand: memory must
            not have them.
        notices: What the user should know.
        on_base: What the base answers to the new task; None in a workspace without guards.
    """

    before: Mapping[str, Scored]
    rows: tuple[Encoded, ...]
    validation: tuple[Encoded, ...]
    memory: remember.LedgerMemory
    columns: "Mapping[str, list[TopK]]"
    tests: frozenset[str]
    notices: tuple[str, ...]
    on_base: OnBase | None = None


def prepare(run: Run) -> Prepared:
    """Return what `run` trains from.

    Raises:
        Interrupted: A signal came while the task was scored.
    """
    session, plan = run.session, run.plan
    with run.stages.stage("loading"):
        session.load(session.ledger.resolve("base"))
    with run.stages.stage("scoring"):
        on_base = base_on_new_task(run)
    before = {"base": run.score(session.ledger.resolve("base"), plan.task), "head": run.score(plan.parent, plan.task)}
    run.clock.start()
    with run.stages.stage("rows"):
        return replace(gather(run, plan.training, before), on_base=on_base)


def gather(run: Run, training: TrainingRows, before: Mapping[str, Scored]) -> Prepared:
    """Return rows and memory as tokens, with their teacher columns.

    Args:
        run: The learn.
        training: Its rows, or some of them.
        before: The new task's scores at "base" and at "head".
    """
    session, plan = run.session, run.plan
    ledger = session.ledger
    if _asks_a_teacher(plan.recipe):  # which answers with what all tasks share, or with the base under it
        session.load_slots(view_of(plan.slots))
    rows, notices = plan.encoder.all(training.rows), [*training.notices]
    if cut := sum(row.cut > 0 for row in rows):
        longest = plan.recipe.settings.max_length
        notices.append(f"longer than {longest} tokens, and cut: {cut:,} of {counted(len(rows), 'train row')}")
    memory = remember.LedgerMemory.at(ledger, plan.parent)
    tests = _tests(ledger, plan, memory)
    teachers = remember.Teachers(plan.recipe, plan.encoder, session.runtime, run.stages)
    memory = remember.with_general(memory, plan.general, teachers, rows, seed=session.seed, tests=tests)
    columns = {
        column.name: teachers.query(column, rows) for column in plan.recipe.columns("new") if column.teacher != "start"
    }
    return Prepared(before, rows, plan.encoder.all(training.validation), memory, columns, tests, tuple(notices))


def _asks_a_teacher(recipe: Recipe) -> bool:
    """Return whether a model gives columns before training begins."""
    columns = [column for of in ("new", "general") for column in recipe.columns(of)]
    return any(column.teacher != "start" for column in columns)


def _tests(ledger: Ledger, plan: Plan, memory: remember.LedgerMemory) -> frozenset[str]:
    rows = (*plan.task.train, *plan.general, *(own.row for own in memory.rows))
    known = KnownRows.of(ledger, plan.parent, rows)
    asked = {row.question for row in plan.task.test} | known.questions(["test"])
    return frozenset(asked | guarded_questions(ledger, rows))
