"""General instruction rows that a learn may rehearse."""

from perdure.bridges.hub_data import read_hub
from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.data.load import read_rows
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.workflows.guards.leaks import guarded_questions
from perdure.workflows.known_rows import HELD_OUT, KnownRows


def general_rows(ledger: Ledger, parent: Entry, task: TaskData, recipe: Recipe) -> tuple[tuple[Row, ...], list[str]]:
    """Return the general rows that may be rehearsed, none of them a test row or deleted before, and notices."""
    if task.spec.general is None:
        return (), []
    rows, notices = read_rows(task.spec.general, hub=read_hub)
    if not recipe.drawing_from("general"):
        advice = (
            "no method rehearses the general rows; add instruction_replay (--set methods.instruction_replay.mix=0.1)"
        )
        return rows, [*notices, advice]
    known = KnownRows.of(ledger, parent, rows)
    tests = {row.question for row in task.held_out} | known.questions(HELD_OUT)
    guarded = guarded_questions(ledger, rows) - tests
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


def rehearsed_before(ledger: Ledger, parent: Entry, task: TaskData) -> list[str]:
    """Return a notice of general rows in memory with the question of a test row: they are rehearsed no longer."""
    items = ledger.manifest_rows(parent.memory) if parent.memory else []
    rehearsed = {row.question for item, row in items if item.pool == "general"}
    repeated = sum(row.question in rehearsed for row in task.test)
    if not repeated:
        return []
    return [f"rehearsed no longer, as test rows ask the same: the general rows of {counted(repeated, 'question')}"]
