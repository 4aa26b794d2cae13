"""What a learn that trains nothing needs of its task: labels as answers, and rows that it has not counted before."""

from collections.abc import Mapping, Sequence

from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted
from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.slots import ROUTE, measured_slot
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger, row_key
from perdure.workflows.labelling import SCORERS

TRAIN = f"or learn it with a recipe that trains ({DEFAULT_RECIPE})"


def check_labels(task: TaskData, recipe: Recipe) -> None:
    """Refuse a task that a recipe without training cannot answer.

    Raises:
        BadInput: Its rows have no labels, several each, choices of their own, or all the same one; or its scorer compares no
            labels.
    """
    if recipe.trains:
        return
    what = f"recipe {recipe.name} answers with one of the labels of the train rows, and"
    if task.format == "text_labels":
        raise BadInput(
            f"{what} the rows of {task.name} have several labels each; give them one (a column 'label'), {TRAIN}"
        )
    if any(row.choices or row.contexts for row in task.train):
        raise BadInput(f"{what} the rows of {task.name} have choices of their own; learn it with a recipe that trains")
    if not task.answers_are_labels:
        raise BadInput(
            f"{what} those of {task.name} have none that decide their answers; give each row a column 'label' with the name of "
            f"its class, {TRAIN}"
        )
    answers = sorted({row.answer.strip() for row in task.train})
    if len(answers) < 2:
        raise BadInput(
            f"{what} all of {task.name} have the same, {quoted(answers[0])}; add rows of another label, {TRAIN}"
        )
    if (name := str(task.scorer["name"])) not in SCORERS:
        raise BadInput(
            f"{what} the scorer {name} of {task.name} compares no labels; set scorer: to one of {', '.join(SCORERS)}, {TRAIN}"
        )


def uncounted(
    ledger: Ledger, parent: Entry, task: TaskData, rows: Sequence[Row], slots: Mapping[str, str]
) -> tuple[Row, ...]:
    """Return the rows that are not in the sums of the task yet: a row is counted once, however often it is given.

    Raises:
        BadInput: There is none.
    """
    counted = counted_keys(ledger, parent, task.name, slots)
    new = tuple(row for row in rows if row_key(row) not in counted)
    if not new:
        raise BadInput(
            f"every train row of {task.name} is counted in its labels already, so there is nothing to learn; give new rows, or "
            f"take the task out first ('perdure revert {task.name}')"
        )
    return new


def counted_keys(ledger: Ledger, parent: Entry, task: str, slots: Mapping[str, str]) -> set[str]:
    """Return the keys of the train rows that the slot `route:<task>` has measured.

    They are those of the learns that wrote it, back to the one that began it: a slot is begun anew after a revert of the task,
    by `start: base`, and where a recipe that answers with labels follows one that trains, or the other way round.

    Args:
        ledger: The ledger.
        parent: Head, before the learn.
        task: Name of the task.
        slots: Those that the learn goes on with.
    """
    name, counted = measured_slot(ROUTE, task), set[str]()
    if name not in slots:
        return counted
    labelled = bool(ledger.labelled_by(parent, [task]))
    for entry in ledger.ancestors(parent):
        if entry.task != task or entry.kind not in ("learn", "revert"):
            continue
        if name not in ledger.slots(entry) or bool(ledger.labelled_by(entry, [task])) != labelled:
            break
        if entry.kind == "learn" and name in entry.slots:
            counted.update(ledger.train_keys(entry.tasks[task]))
            if (entry.recipe or {}).get("start") == "base":
                break
    return counted
