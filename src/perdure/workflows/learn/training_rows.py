"""Which rows a learn trains on, and which choose its weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.data.split import distinct, held_out
from perdure.data.task import TaskData


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a learn.

    Args:
        rows: The rows to train on.
        validation: Rows that choose the weights.
        notices: What the user should know.
    """

    rows: tuple[Row, ...]
    validation: tuple[Row, ...]
    notices: tuple[str, ...] = ()


def training_rows(task: TaskData, recipe: Recipe, old: Sequence[Row], *, first: bool, seed: int) -> TrainingRows:
    """Return the rows to train on and the validation rows, which choose the weights.

    If the recipe needs validation rows and none are given, they are drawn from the train rows.

    Args:
        task: The task to learn.
        recipe: How it is learned.
        old: Train rows of older tasks that the recipe trains on again.
        first: Whether no task went before; see `Plan.first`.
        seed: Seed of the learn.
    """
    rows, validation, notices = [*task.train], [*task.validation], []
    settings = recipe.settings
    wanted = settings.validates or (recipe.needs("validation") and not first)
    if wanted and not validation:
        rows, validation = held_out(rows, settings.validation_share, seed, task.name)
        notices.append(
            f"validated on {len(validation):,} of {counted(len(task.train), 'train row')}, which are not trained on "
            f"(validation_share {settings.validation_share:g}); rows with 'split': 'validation' take their place"
            if validation
            else "one train row is too few to hold any out: no validation row chooses the weights"
        )
    if settings.data == "all":
        kept_out = {row.question for row in validation}
        rows = [row for row in distinct([*rows, *old]) if row.question not in kept_out]
    return TrainingRows(tuple(rows), tuple(validation), tuple(notices))
