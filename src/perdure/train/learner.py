"""The learning of a task under a recipe. Every host makes these calls in this order; another order is refused.

learner = Learner(trainable, recipe, inputs)
for n in range(start, learner.total):
    if learner.stopped: break
    update = learner.update(n)
    loss = update.gradients(backward)
    clip(...); optimizer.step(); schedule.step(); optimizer.zero_grad()
    update.finish()
learner.settle()
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from perdure.core.errors import BadSpec, Diverged
from perdure.core.recipe import Recipe
from perdure.core.seams import State
from perdure.core.stages import Stages
from perdure.core.words import counted
from perdure.ledger.records import Heartbeat
from perdure.train.effects import norm
from perdure.train.model_view import ModelView
from perdure.train.planned_updates import plan_updates
from perdure.train.task import Best, OpenTask, TaskInputs, Trainable, check_finite, contiguous
from perdure.train.update import Update
from perdure.train.validation import is_stale, validated_updates


class Learner(OpenTask):
    """The updates of one task under one recipe.

    Args:
        trainable: What is trained.
        recipe: Settings and methods.
        inputs: Rows, memory and state that it is learned from.
        stages: Counts the seconds of the parts of the task, and shows how far each is.

    Attributes:
        updates: New rows of each micro-batch of each update.
        epoch_ends: Updates with which an epoch ends.
        room: Padded tokens that one forward may have.
        settled: Whether `settle` was called.

    Raises:
        BadSpec: A method's state belongs to parameters of other shapes.
    """

    def __init__(self, trainable: Trainable, recipe: Recipe, inputs: TaskInputs, stages: Stages | None = None):
        super().__init__(trainable, recipe, inputs, stages)
        self.begun = self.settled = False
        self.open: Update | None = None
        planned = plan_updates([len(row) for row in inputs.rows], recipe.settings, inputs.seed, inputs.name)
        self.updates, self.epoch_ends, self.room = planned.updates, planned.epoch_ends, planned.room
        self.validated = validated_updates(recipe.settings, self.total, self.epoch_ends) if inputs.validation else ()

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
        """Updates of the whole task, if it does not stop early."""
        return len(self.updates)

    @property
    def stopped(self) -> bool:
        """Whether the task ends here, because the last validations brought no lower loss."""
        return is_stale(self.record.validation, self.recipe.settings.early_stopping_patience)

    @property
    def ended(self) -> int:
        """Updates of the task once it is over."""
        return self.record.validation[-1][0] + 1 if self.stopped else self.total

    @property
    def notices(self) -> list[str]:
        """What the user should know of the updates and the validations, once the task is settled."""
        notices = [self.memory_notice] if self.memory_notice else []
        ended, kept = self.ended, self.record.kept
        if ended < self.total:
            patience = counted(self.recipe.settings.early_stopping_patience, "validation")
            notices.append(f"stopped early, after update {ended} of {self.total}: {patience} without a lower loss")
        if kept is not None:
            losses = dict(self.record.validation)
            notices.append(
                f"keep: best took the weights of update {kept + 1} of {ended}: their loss on the validation rows is "
                f"{losses[kept]:.4g}, and that of the last {losses[ended - 1]:.4g}"
            )
        return notices

    def begin(self) -> None:
        """Compute the columns of new rows that the model itself gives, and prepare every method; a second call does nothing.

        The first update calls it, and so does a checkpoint before it is loaded.
        """
        if self.begun:
            return
        for value in self.params.values():
            value.grad = None
        for column in self.recipe.columns("new"):
            if column.teacher == "start":
                if not self.inputs.first:
                    with self.stages.stage("teachers", f"distributions of {self.inputs.name} before training"):
                        self.columns[column.name] = self.inference.top_k(
                            self.inputs.rows, column.top_k, labels=column.labels
                        )
            elif column.name not in self.columns:
                raise BadSpec(f"column {column.name!r} comes from {column.teacher!r}, and this host did not compute it")
        if (planner := self.recipe.owner("adapter")) and self.inputs.effects:
            self.record.beat(0, planner.name, Heartbeat(**self.inputs.effects))
        with self.inference.eval_mode():
            for method in self.recipe.owners("prepare"):
                with self.stages.stage("statistics", f"statistics of {method.name} before training"):
                    self.state[method.name] = contiguous(method.prepare(ModelView(self), self.state[method.name]))
                self._check(self.state[method.name], f"method {method.name} prepared state that is", 0)
        self.begun = True

    def update(self, n: int) -> Update:
        """Return update `n` with its rows drawn; the first call begins the task.

        Raises:
            RuntimeError: The previous update is not finished.
        """
        self._refuse_open_update()
        self.begin()
        if self.record.memory_limits:  # of a run that goes on, too
            self.room = min(self.room, self.record.memory_limits[-1][1])
        self.open = Update(self, n, self.total, self.updates[n], self.room, closing=self._close)
        return self.open

    def settle(self) -> None:
        """Write the final weights, and measure.

        The final weights are the last ones, or those that a method settles on. With `keep: best` they are the weights of the
        validation with the lowest loss. Each validation uses the weights that would be written if the task ended there.

        A second call, for example by a host that resumes after the end, does nothing.

        Raises:
            Diverged: The weights, or what a method measured, are not finite; the message names the method.
            RuntimeError: An update is not finished.
        """
        if self.settled:
            return
        self._refuse_open_update()
        self._check(self.params, "the last update gave weights that are", self.total)
        with self.inference.eval_mode():
            with self.stages.stage("statistics", f"final weights of {self.inputs.name}"):
                values, state = self._settled()
            if method := self.recipe.owner("settle"):
                self.state[method.name] = state
                gap = {name: value.float() - self.params[name].detach().float() for name, value in values.items()}
                self.record.beat(self.ended, method.name, Heartbeat(moved=norm(gap)))
            if self.best and self.best.update != self.ended - 1:
                values, self.record.kept = self.best.weights, self.best.update
                if method:
                    self.state[method.name] = dict(self.best.state)
            with torch.no_grad():
                for name, value in values.items():
                    self.params[name].copy_(value)
            for method in self.recipe.owners("measure"):
                with self.stages.stage("statistics", f"statistics of {method.name} after training"):
                    self.state[method.name] = method.measure(ModelView(self), self.state[method.name])
                self._check(self.state[method.name], f"method {method.name} measured state that is", self.total)
        self.settled = True

    def _close(self) -> None:
        """End the open update, and validate if that is due."""
        update, self.open = self.open, None
        if update is not None and update.index in self.validated:
            self._validate(update.index)

    def _validate(self, update: int) -> None:
        """Record the loss of the validation rows under what the recipe would store now, and the weights if they are the best.

        Raises:
            Diverged: The loss, or what a method settles on, is not finite.
        """
        with self.stages.stage("validation", f"validation of {self.inputs.name}"):
            with self.inference.eval_mode():
                settled, state = self._settled()
            weights = {name: settled.get(name, value).detach() for name, value in self.params.items()}
            losses = self.inference.nll(self.inputs.validation, weights=weights if settled else None)
        loss = sum(losses) / len(losses)
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss of the validation rows is {loss} after update {update + 1} of {self.total}; lower the learning rate"
            )
        self.record.validation.append((update, loss))
        if self.recipe.settings.keep == "best" and (self.best is None or loss < self.best.loss):
            kept, after = ({name: value.clone() for name, value in of.items()} for of in (weights, state))
            self.best = Best(loss, update, kept, after)

    def _settled(self) -> tuple[Mapping[str, Tensor], State]:
        """Return the values that a method settles on now, and its state after it; no values where the weights stay."""
        method = self.recipe.owner("settle")
        if method is None:
            return {}, {}
        values, state = method.settle(ModelView(self), self.state[method.name])
        self._check(values, f"method {method.name} settled on weights that are", self.total)
        return values, state

    def _refuse_open_update(self) -> None:
        if self.open is not None:
            raise RuntimeError(
                f"update {self.open.index} is not finished; call its gradients(), step, and its finish()"
            )

    def _check(self, values: Mapping[str, Tensor], what: str, update: int) -> None:
        check_finite(values, what, update, self.total)
