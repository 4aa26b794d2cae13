"""Cautions: what makes a learn likely to teach little or to decide nothing, as far as it shows before anything is trained."""

from collections import Counter
from collections.abc import Sequence

from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.script import narrowed, words
from perdure.core.words import counted
from perdure.data.columns import listed
from perdure.data.label_sets import names_in_sets
from perdure.data.task import TaskData
from perdure.ledger.records import Gate
from perdure.maths.statistics import items_to_decide
from perdure.train.planned_updates import count_updates

FEW = 50  # updates; fewer rarely teach a task
RARE = 3  # train rows of a label; fewer rarely teach it
CHANGING = 0.05  # share of answers of which one learn changes some to right and as many to wrong


def cautions(
    task: TaskData, known: TaskData | None, rows: int, recipe: Recipe, gate: Gate | None, called: str = ""
) -> list[str]:
    """Return what the user should know before a learn.

    Args:
        task: The task to learn.
        known: Its version so far, if this is an update.
        rows: Number of rows to train on.
        recipe: How it is learned.
        gate: The rule by which this and later learns are judged; None for none.
        called: Name of the task for people; its own where left empty.
    """
    return [
        *few_updates(rows, recipe),
        *rare_labels(task, known),
        *repeated(task),
        *sampled(task, called),
        *(small_test_part(task, gate, called) if gate else ()),
    ]


def few_updates(rows: int, recipe: Recipe) -> list[str]:
    """Say that there are few updates."""
    updates = count_updates(rows, recipe.settings)
    if updates >= FEW or not recipe.trains:
        return []
    return [
        f"fewer than {FEW} updates (here {updates}) rarely teach a task: train longer (num_train_epochs), or in smaller "
        "batches (per_device_train_batch_size)"
    ]


def rare_labels(task: TaskData, known: TaskData | None) -> list[str]:
    """Name the labels that few train rows have, or none, though test rows have them; those learned before are left out."""
    if not task.answers_are_labels:
        return []
    before = set(known.labels) if known else set()
    trained, tested = _labels(task.train, task.format), _labels(task.test, task.format)
    rare = [name for name in sorted({*trained, *tested} - before) if trained[name] < RARE]
    if not rare:
        return []
    what = "1 label has" if len(rare) == 1 else f"{len(rare)} labels have"
    least = min(rare, key=lambda name: trained[name])
    few = f"{listed(rare)} ({least} has {trained[least] or 'none'})"
    return [f"{what} fewer than {RARE} train rows, and will hardly be learned: {few}; add rows, or join labels"]


def _labels(rows: Sequence[Row], format: str) -> Counter[str]:
    """Return how many rows have each label."""
    found: Counter[str] = Counter()
    for row in rows:
        if row.label is not None:
            found.update(names_in_sets([row.label]) if format == "text_labels" else [row.label])
    return found


def repeated(task: TaskData) -> list[str]:
    """Say how many test rows ask what a train row asks, in the same words."""
    trained = {_asked(row): row for row in reversed((*task.train, *task.validation))}
    trained.pop("", None)
    twins = [(row, trained[_asked(row)]) for row in task.test if _asked(row) in trained]
    if not twins:
        return []
    test, train = twins[0]
    verb = "asks" if len(twins) == 1 else "ask"
    return [
        f"{len(twins):,} of {counted(len(task.test), 'test row')} {verb} what a train row asks, in the same words (the first "
        f"{test.source} as {train.source}): the score counts what is known by heart"
    ]


def _asked(row: Row) -> str:
    """Return the words of a row's question, without case and punctuation."""
    turns = [turn.content for turn in row.messages[:-1] if turn.role != "system"]
    return " ".join(words(narrowed(" ".join(turns) if row.messages else row.prompt or row.completion).casefold()))


def sampled(task: TaskData, called: str = "") -> list[str]:
    """Say that a sample of the test rows is scored."""
    if task.scored_rows == len(task.test):
        return []
    return [
        f"{task.scored_rows:,} of {len(task.test):,} test rows of {called or task.name} are scored at each learn (`test_rows`); "
        f"'perdure eval {called or task.name} --all' scores all of them"
    ]


def small_test_part(task: TaskData, gate: Gate, called: str = "") -> list[str]:
    """Say that a test part cannot show that nothing was lost, and how many rows would."""
    limit, n = gate.tolerances.get(task.name, gate.tolerance), task.scored_rows
    if not limit or n >= (least := items_to_decide(0.0, limit, gate.confidence)):
        return []
    usual, called = items_to_decide(CHANGING, limit, gate.confidence), called or task.name
    return [
        f"{counted(n, 'test row')} cannot show the gate of a later learn that {called} lost no more than {100 * limit:g} "
        f"points: that takes {least:,} where no answer changes, and about {usual:,} where one in {1 / CHANGING:.0f} does"
    ]
