"""When the weights of a task are validated, and when validations that brought nothing end it."""

import math
from collections.abc import Collection, Sequence

from perdure.core.settings import Settings


def validated_updates(settings: Settings, total: int, epoch_ends: Collection[int]) -> tuple[int, ...]:
    """Return the updates after which the weights are validated, in order: every `eval_steps` or each epoch, and the last."""
    if not settings.validates or not total:
        return ()
    chosen = epoch_ends
    if settings.eval_steps:
        every = math.ceil(settings.eval_steps * (total if settings.eval_steps < 1 else 1))
        chosen = range(every - 1, total, every)
    return tuple(sorted({update for update in chosen if update < total} | {total - 1}))


def is_stale(validations: Sequence[tuple[int, float]], patience: int) -> bool:
    """Return whether the last `patience` validations (update, loss) have no lower loss than one before; never for 0."""
    if not patience or len(validations) <= patience:
        return False
    losses = [loss for _, loss in validations]
    return len(losses) - 1 - losses.index(min(losses)) >= patience
