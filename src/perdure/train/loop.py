"""The reference loop: the definition of what a recipe means, in plain PyTorch on one screen."""

from collections.abc import Callable

from perdure.train.checkpoint import Keeper
from perdure.train.learner import Learner
from perdure.train.optimizer import clip, make_optimizer, make_schedule

Progress = Callable[[int, int, float], None]  # (updates done, total updates, loss)


def train(learner: Learner, keeper: Keeper | None = None, progress: Progress | None = None) -> None:
    """Run every update of `learner` and settle; resumes from the keeper's checkpoint if there is one.

    Raises:
        Diverged: A loss term is not finite.
        Interrupted: The keeper received a signal to stop.
    """
    settings, params = learner.recipe.settings, list(learner.params.values())
    optimizer = make_optimizer(params, settings)
    keeper = keeper or Keeper(None, learner)
    start = keeper.resume(optimizer)
    schedule = make_schedule(optimizer, settings, learner.total, start)
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
