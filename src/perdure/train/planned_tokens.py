"""The tokens that the planned updates of a task run forward, rows from memory included."""

from collections.abc import Sequence
from dataclasses import replace

from perdure.core.seams import DrawContext
from perdure.train.draws import draw_rows
from perdure.train.planned_updates import PlannedUpdates
from perdure.train.task import OpenTask


def forward_tokens(task: OpenTask, planned: PlannedUpdates, lengths: Sequence[int]) -> int:
    """Return the tokens that run forward in the planned updates: of new rows, and of the rows that they draw from memory.

    The draws are those of the task itself, since their keys are the same; they are counted in no account of the pools. Where a
    method weights its draws by what training finds, its weights are those before training.

    Args:
        task: The task, begun; its new rows may be fewer than are planned.
        planned: The updates.
        lengths: Tokens of each new row that is planned.
    """
    pools = {name: replace(pool, served={}) for name, pool in task.pools.items()}
    sizes = {name: len(pool.keys) for name, pool in pools.items()}
    tokens = 0
    for index, batches in enumerate(planned.updates):
        new = [lengths[i] for batch in batches for i in batch]
        context = DrawContext(index, len(planned.updates), len(new), sizes)
        drawn = draw_rows(task.recipe, pools, task.state, context, max(new), task.inputs.seed, task.inputs.name)
        ran = [(pools[draw.pool], rows) for draw, rows in drawn.rows.items() if draw not in drawn.waiting]
        tokens += sum(new) + sum(len(pool.rows[i]) for pool, rows in ran for i in rows)
    return tokens
