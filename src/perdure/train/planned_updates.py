"""The plan of a task's updates, from the lengths of the rows: a dry run counts it, and a learner runs it."""

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.core.settings import Settings
from perdure.model.grouping import plan_epoch

SPREAD = 1.75  # limit of one forward, in average batches of new rows: larger ones are rare, and splitting them limits the memory


@dataclass(frozen=True)
class PlannedUpdates:
    """The updates of a task.

    Args:
        updates: New rows of each micro-batch of each update, by index.
        epoch_ends: Updates with which an epoch ends.
        room: Padded tokens that one forward may have.
    """

    updates: list[list[list[int]]]
    epoch_ends: set[int]
    room: float


def plan_updates(lengths: Sequence[int], settings: Settings, seed: int, task: str) -> PlannedUpdates:
    """Return the updates of a task.

    Args:
        lengths: Tokens of each new row.
        settings: Epochs or updates, batch size and accumulation.
        seed: Seed of the learn.
        task: Name of the task; with the seed the key of the order.
    """
    batches = [
        plan_epoch(lengths, settings.per_device_train_batch_size, seed, task, epoch)
        for epoch in range(settings.epochs(len(lengths)))
    ]
    sizes = [padded_tokens(lengths, batch) for epoch in batches for batch in epoch]
    room = max(*sizes, SPREAD * sum(sizes) / len(sizes)) if sizes else 0.0
    group = settings.gradient_accumulation_steps
    most = settings.max_steps if settings.max_steps > 0 else None
    updates = [epoch[i : i + group] for epoch in batches for i in range(0, len(epoch), group)][:most]
    ends = {len(batches[0][::group]) * (e + 1) - 1 for e in range(len(batches))}
    return PlannedUpdates(updates, ends, room)


def padded_tokens(lengths: Sequence[int], batch: Sequence[int]) -> int:
    """Return the tokens of a padded batch of rows."""
    return len(batch) * max(lengths[i] for i in batch)


def count_updates(rows: int, settings: Settings) -> int:
    """Return the number of updates of a task with this many rows, as in `plan_updates`, without planning them."""
    if settings.max_steps > 0 and settings.train != "none":
        return settings.max_steps
    batches = -(-rows // settings.per_device_train_batch_size)
    return settings.epochs(rows) * -(-batches // settings.gradient_accumulation_steps)
