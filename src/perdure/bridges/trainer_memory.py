"""What a `ContinualTrainer` stores of a task when it ends: the rows that its recipe admits, with the model's distributions."""

from collections.abc import Sequence
from dataclasses import replace

from perdure.core.rows import Row
from perdure.core.seams import AdmitContext, Column
from perdure.core.step import TopK
from perdure.memory.file import TokenMemory, TokenRow
from perdure.memory.memory import scores_of
from perdure.train.learner import Learner


def losses(learner: Learner, fresh: Sequence[TokenRow], when: str) -> list[float] | None:
    """Return the loss of each row, if the admitting method needs it: `when` is "nll_before" or "nll_after" the task."""
    return learner.inference.nll([row.row for row in fresh]) if learner.recipe.needs(when) else None


def remembered(
    memory: TokenMemory, fresh: Sequence[TokenRow], learner: Learner, *, stage: int, nll_before: Sequence[float] | None
) -> TokenMemory:
    """Return the memory after a task, from its settled `learner`.

    Args:
        memory: What was drawn from.
        fresh: The task's rows.
        learner: Its learn; gives recipe, task and seed, and the model whose distributions are stored for distillation.
        stage: Number of the task.
        nll_before: Losses of the rows before the task, if the admitting method needs them.

    Cost: one forward a row admitted, and one a fresh row where admission needs losses.
    """
    recipe, inputs = learner.recipe, learner.inputs
    if recipe.remembers:
        context = AdmitContext(inputs.seed, inputs.name, nll_before, losses(learner, fresh, "nll_after"))
        texts = [Row(prompt=row.key, label=row.label, task=row.task) for row in fresh]  # text may not be known
        scores = scores_of(recipe, texts, context, learner.state)
        scored = [replace(row, score=score) for row, score in zip(fresh, scores, strict=True)]
        grown = memory.admit(scored, scores, recipe.settings, inputs.seed, stage)
    else:
        grown = memory

    def query(column: Column, rows: Sequence[TokenRow]) -> Sequence[TopK]:
        return learner.inference.top_k([row.row for row in rows], column.top_k, labels=column.labels)

    taught = grown.with_columns(grown.rows, recipe.columns("replay"), query)
    return replace(taught, tasks=[*memory.tasks, inputs.name], states={**memory.states, **learner.measured_state})
