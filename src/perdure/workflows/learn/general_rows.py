"""General instruction rows that a learn may rehearse."""

from perdure.bridges.hub_data import read_hub
from perdure.core.progress import Tick
from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.data.load import read_rows
from perdure.data.sources import GENERAL_MADE
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.workflows.guards.leaks import guarded_questions
from perdure.workflows.known_rows import HELD_OUT, KnownRows
from perdure.workflows.learn.general_made import made_general
from perdure.workflows.session import Session


def general_rows(
    session: Session, parent: Entry, task: TaskData, recipe: Recipe, tick: Tick | None = None
) -> tuple[tuple[Row, ...], list[str]]:
    """Return the general rows that may be rehearsed, none of them a test row or deleted before, and notices.

    Args:
        session: Of the workspace.
        parent: The entry that the learn starts from.
        task: The task, which may name general data.
        recipe: How it is learned. Rows that no method draws are returned all the same, and none are made.
        tick: Called with (what, done, total) while rows are made.
    """
    ledger, given = session.ledger, task.spec.general
    if given is None:
        return (), []
    made = given == GENERAL_MADE
    if not recipe.drawing_from("general"):
        rows, notices = ((), []) if made else read_rows(given, hub=read_hub)
        advice = (
            "no method rehearses the general rows; add instruction_replay (--set methods.instruction_replay.mix=0.1)"
        )
        return rows, [*notices, advice]
    rows, notices = made_general(session, tick=tick) if made else read_rows(given, hub=read_hub)
    twins = {row.question: _twin(row) for row in rows} if made else {}  # a test row may ask the same as plain text
    known = KnownRows.of(ledger, parent, [*rows, *twins.values()])
    tests = {question for row in task.held_out for question in row.questions} | known.questions(HELD_OUT)
    tests |= {question for question, twin in twins.items() if twin.question in tests}
    guarded = guarded_questions(ledger, [*rows, *twins.values()]) - tests
    guarded |= {question for question, twin in twins.items() if twin.question in guarded} - tests
    if asked := sum(row.question in guarded for row in rows):
        notices.append(f"not rehearsed, as a guard asks the same: {counted(asked, 'general row')}")
        rows = tuple(row for row in rows if row.question not in guarded)
    gone = ledger.deleted({row.hash for row in rows})
    usable = tuple(row for row in rows if row.question not in tests and row.hash not in gone)
    tested = sum(row.question in tests for row in rows)
    if tested:
        notices.append(f"not rehearsed, as a test or validation row asks the same: {counted(tested, 'general row')}")
    if deleted := len(rows) - len(usable) - tested:
        notices.append(f"deleted from this workspace before, and left out: {counted(deleted, 'general row')}")
    return usable, notices


def _twin(row: Row) -> Row:
    """Return the question of a conversation of two turns as a row of plain text."""
    return Row(prompt=row.messages[0].content, completion=row.answer)


def rehearsed_before(ledger: Ledger, parent: Entry, task: TaskData) -> list[str]:
    """Return a notice of general rows in memory with the question of a test row: they are rehearsed no longer."""
    items = ledger.manifest_rows(parent.memory) if parent.memory else []
    rehearsed = {row.question for item, row in items if item.pool == "general"}
    repeated = sum(not rehearsed.isdisjoint(row.questions) for row in task.test)
    if not repeated:
        return []
    return [f"rehearsed no longer, as test rows ask the same: the general rows of {counted(repeated, 'question')}"]
