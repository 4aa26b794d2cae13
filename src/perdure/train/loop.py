"""The reference loop: the definition of what a recipe means, in plain PyTorch on one screen."""

from collections.abc import Callable

from perdure.train.checkpoint import Keeper
from perdure.train.learner import Learner
from perdure.train.optimizer import PLAIN_FACTORIES, Factories, clip

Progress = Callable[[int, int, float], None]  # (updates done, total updates, loss)


def train(
    learner: Learner,
    keeper: Keeper | None = None,
    progress: Progress | None = None,
    factories: Factories = PLAIN_FACTORIES,
) -> None:
    """Run every update of `learner` and settle; resumes from the keeper's checkpoint if there is one.

    Args:
        learner: What to learn.
        keeper: Its checkpoint.
        progress: Called after every update.
        factories: What makes the optimizer and its schedule; the plain ones know AdamW alone.

    Raises:
        Diverged: A loss term is not finite.
        Interrupted: The keeper received a signal to stop.
    """
    settings, params = learner.recipe.settings, list(learner.params.values())
    optimizer = factories.optimizer(params, settings)
    keeper = keeper or Keeper(None, learner)
    start = keeper.resume(optimizer)
    schedule = factories.schedule(optimizer, settings, learner.total, start)
    learner.model.train()
    for n in range(start, learner.total):
        if learner.stopped:
            break
        update = learner.update(n)
        loss = update.gradients()
        clip(params, settings)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        update.finish()
        keeper.after(n, optimizer)
        if progress:
            progress(n + 1, learner.total, loss)
    learner.settle()
