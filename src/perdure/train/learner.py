"""A task that is learned under a recipe. Every host drives it with these calls; another order is refused.

learner = Learner(trainable, recipe, inputs)
for n in range(start, learner.total):
    update = learner.update(n)
    loss = update.gradients(backward)
    clip(...); optimizer.step(); schedule.step(); optimizer.zero_grad()
    update.finish()
learner.settle()
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from perdure.core.errors import BadSpec
from perdure.core.recipe import Recipe
from perdure.ledger.records import Heartbeat
from perdure.train.effects import norm
from perdure.train.model_view import ModelView
from perdure.train.planned_updates import plan_updates
from perdure.train.task import OpenTask, TaskInputs, Trainable, check_finite
from perdure.train.update import Update


class Learner(OpenTask):
    """The updates of one task under one recipe.

    Args:
        trainable: What is trained.
        recipe: Settings and methods.
        inputs: What it is learned from.
        max_updates: Updates after which the task ends, where its epochs have more.

    Attributes:
        updates: New rows of each micro-batch of each update.
        epoch_ends: Updates with which an epoch ends.
        room: Padded tokens that one forward may have.
        unused: Methods whose work was left out when the task settled, and why.
        settled: Whether `settle` was called.

    Raises:
        BadSpec: A method's state belongs to parameters of other shapes.
    """

    def __init__(self, trainable: Trainable, recipe: Recipe, inputs: TaskInputs, max_updates: int | None = None):
        super().__init__(trainable, recipe, inputs)
        self.unused: dict[str, str] = {}
        self.begun = self.settled = False
        self.open: Update | None = None
        planned = plan_updates([len(row) for row in inputs.rows], recipe.settings, inputs.seed, inputs.name)
        self.updates, self.epoch_ends, self.room = planned.updates[:max_updates], planned.epoch_ends, planned.room

    @property
    def memory_notice(self) -> str | None:
        """What to say where memory ran out, and the micro-batches became smaller; None where it did not."""
        if not self.record.memory_limits:
            return None
        update, _ = self.record.memory_limits[0]
        return (
            f"memory ran out at update {update} of {self.total}; micro-batches went on in smaller parts, with the same updates. "
            "A smaller per_device_train_batch_size with gradient_accumulation_steps, or gradient_checkpointing, fits at once"
        )

    @property
    def total(self) -> int:
        """Updates of the whole task."""
        return len(self.updates)

    def begin(self) -> None:
        """Compute the columns of new rows that the model itself gives, and prepare every method; a second call does nothing.

        The first update begins the task, and so does a checkpoint before it is loaded.
        """
        if self.begun:
            return
        for value in self.params.values():
            value.grad = None
        for column in self.recipe.columns("new"):
            if column.teacher == "start":
                if not self.inputs.first:
                    self.columns[column.name] = self.inference.top_k(self.inputs.rows, column.top_k)
            elif column.name not in self.columns:
                raise BadSpec(f"column {column.name!r} comes from {column.teacher!r}, and this host did not compute it")
        with self.inference.eval_mode():
            for method in self.recipe.owners("prepare"):
                self.state[method.name] = method.prepare(ModelView(self), self.state[method.name])
                self._check(self.state[method.name], f"method {method.name} prepared state that is", 0)
        self.begun = True

    def update(self, n: int) -> Update:
        """Return update `n`, its rows drawn; the first one begins the task.

        Raises:
            RuntimeError: The update before is not finished.
        """
        self._refuse_open_update()
        self.begin()
        if self.record.memory_limits:  # of a run that goes on, too
            self.room = min(self.room, self.record.memory_limits[-1][1])
        self.open = Update(self, n, self.total, self.updates[n], self.room, closing=self._close)
        return self.open

    def settle(self) -> None:
        """Write the final weights, and measure.

        They are the last ones, or what a method settles on. With `keep: best` they are the best on validation rows: of the
        weights after each epoch, and of what a method settles on.

        A second call, as by a host that resumes after the end, does nothing.

        Raises:
            Diverged: The weights, or what a method measured, are not finite; the message names the method.
            RuntimeError: An update is not finished.
        """
        if self.settled:
            return
        self._refuse_open_update()
        self._check(self.params, "the last update gave weights that are", self.total)
        values: Mapping[str, Tensor] = self.best[1] if self.best else {}
        with self.inference.eval_mode():
            if method := self.recipe.owner("settle"):
                chosen, self.state[method.name] = method.settle(ModelView(self), self.state[method.name])
                self._check(chosen, f"method {method.name} settled on weights that are", self.total)
                values = self._better(chosen, method.name)
                gap = {name: value.float() - self.params[name].detach().float() for name, value in chosen.items()}
                self.record.beat(self.total, method.name, Heartbeat(moved=norm(gap)))
            with torch.no_grad():
                for name, value in values.items():
                    self.params[name].copy_(value)
            for method in self.recipe.owners("measure"):
                self.state[method.name] = method.measure(ModelView(self), self.state[method.name])
                self._check(self.state[method.name], f"method {method.name} measured state that is", self.total)
        self.settled = True

    def _close(self) -> None:
        """End the open update; where an epoch ends, or the task does, compare the weights on the validation rows."""
        update, self.open = self.open, None
        if self.recipe.settings.keep != "best" or not self.inputs.validation or update is None:
            return
        if update.index in self.epoch_ends or update.index == self.total - 1:
            loss = self._validation_loss()
            if self.best is None or loss < self.best[0]:
                self.best = (loss, {name: value.detach().clone() for name, value in self.params.items()})

    def _better(self, settled: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
        """Return the better of what a method settled on and of the best epoch, by their loss on validation rows."""
        if self.best is None:
            return settled
        loss = self._validation_loss(settled)
        if loss <= self.best[0]:
            return settled
        self.unused[name] = (
            f"keep: best took the weights after an epoch, whose loss on the validation rows is {self.best[0]:.4g}; what {name} "
            f"settled on has {loss:.4g}"
        )
        return self.best[1]

    def _validation_loss(self, weights: Mapping[str, Tensor] | None = None) -> float:
        """Return the mean loss of the validation rows, under other `weights` if given."""
        return sum(self.inference.nll(self.inputs.validation, weights=weights)) / len(self.inputs.validation)

    def _refuse_open_update(self) -> None:
        if self.open is not None:
            raise RuntimeError(
                f"update {self.open.index} is not finished; call its gradients(), step, and its finish()"
            )

    def _check(self, values: Mapping[str, Tensor], what: str, update: int) -> None:
        check_finite(values, what, update, self.total)
