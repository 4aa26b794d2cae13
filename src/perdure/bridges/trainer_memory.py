"""What a `ContinualTrainer` keeps of a task when it ends: the rows that its recipe admits, with the model's distributions."""

from collections.abc import Sequence
from dataclasses import replace

from perdure.core.rows import Row
from perdure.core.seams import AdmitContext
from perdure.memory.admission import admission_scores
from perdure.memory.tokens import Kept, TokenMemory
from perdure.train.learner import Learner


def losses(learner: Learner, fresh: Sequence[Kept], when: str) -> list[float] | None:
    """Return the loss of each row, if the admitting method needs it: `when` is "nll_before" or "nll_after" the task."""
    return learner.inference.nll([kept.row for kept in fresh]) if learner.recipe.needs(when) else None


def remembered(
    memory: TokenMemory, fresh: Sequence[Kept], learner: Learner, *, stage: int, nll_before: Sequence[float] | None
) -> TokenMemory:
    """Return the memory after a task, from its settled `learner`.

    Args:
        memory: What was drawn from.
        fresh: The task's rows.
        learner: Its learn; gives recipe, task and seed, and the model that says the distributions to distil on later.
        stage: Number of the task.
        nll_before: Losses of the rows before the task, if the admitting method needs them.

    Cost: one forward a row admitted, and one a fresh row where admission needs losses.
    """
    recipe = learner.recipe
    if recipe.remembers:
        context = AdmitContext(
            learner.inputs.seed, learner.inputs.name, nll_before, losses(learner, fresh, "nll_after")
        )
        texts = [Row(prompt=kept.key, label=kept.label, task=kept.task) for kept in fresh]  # text may not be known
        method = recipe.owner("admit")
        scores = (
            method.admit(texts, context, learner.state[method.name])
            if method
            else admission_scores("reservoir", texts, context)
        )
        fresh = [replace(kept, score=score) for kept, score in zip(fresh, scores, strict=True)]
    grown = memory.after(learner.inputs.name, fresh, recipe, learner.inputs.seed, stage)
    columns = dict(memory.columns)
    for column in recipe.columns("replay"):
        known = {} if column.refresh else memory.columns.get(column.name, {})
        stale = [kept for kept in grown.rows if kept.key not in known]
        told = learner.inference.top_k([kept.row for kept in stale], column.top_k)
        columns[column.name] = {**known, **dict(zip([kept.key for kept in stale], told, strict=True))}
    return replace(grown, columns=columns, states={**memory.states, **learner.kept})
