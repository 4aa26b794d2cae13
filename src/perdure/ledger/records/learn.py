"""The record of a learn: the effects of its methods in training, its cost, and the verdict of its gate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from perdure.core.records import JsonObject, Record, omitted
from perdure.ledger.records.verdict import GateOff, Verdict, Word


@dataclass(frozen=True)
class Heartbeat(Record):
    """The effects of a method in one update; None where its seams have no such effect.

    Args:
        held: L2 distance by which `hold` moved parameter values after the optimizer step.
        jump: Distance of the update that training started from to the one that it goes on from, relative to the size of that.
        loss: Value of the method's loss term.
        masked: Share of the gradient's squared norm that the method's mask removed.
        moved: L2 distance by which `settle` moved the weights at the end of the task.
        outside: Share of the squared length of the task's inputs that lies outside the directions of earlier tasks, at its start.
        pull: Norm of the gradient of the loss term, divided by that of the task loss.
        rows: Rows drawn from memory.
        turned: Angle in degrees by which the method turned the gradient.
        weight: Mean factor of the label tokens in the task loss; `loss` and `pull` are then of what the factors change of it.
    """

    held: float | None = omitted(None)
    jump: float | None = omitted(None)
    loss: float | None = omitted(None)
    masked: float | None = omitted(None)
    moved: float | None = omitted(None)
    outside: float | None = omitted(None)
    pull: float | None = omitted(None)
    rows: float | None = omitted(None)
    turned: float | None = omitted(None)
    weight: float | None = omitted(None)

    @property
    def values(self) -> dict[str, float]:
        """The effects of the method, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def acted(self) -> bool:
        """Whether the update differs from the one without the method."""
        return any(abs(value or 0.0) > 0 for value in (self.pull, self.moved, self.masked, self.turned))


Beats = tuple[tuple[int, Heartbeat], ...]  # (number of the update, effects of a method in it)


@dataclass(frozen=True)
class RowsRun(Record):
    """The rows that ran in the updates of a task.

    Args:
        new: Rows of the task, each as often as an update had it.
        drawn: Rows from memory, each as often as an update drew it.
        forwards: Rows that ran forward, new and drawn, each as often as it did: a method may run rows again. Passes before the
            first update and after the last, as for an importance of weights, are not counted.
    """

    new: int = 0
    drawn: int = 0
    forwards: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(Record):
    """The record of the training of a task.

    Args:
        loss: Update and task loss, at each logging interval.
        heartbeats: By method, at each logging interval.
        fed: Methods that got rows from memory.
        acted: Methods that changed an update at least once.
        tokens: Tokens that ran forward in training.
        memory_limits: Update at which memory ran out, and the padded tokens that one forward has had at most since.
        validation: Update and mean loss of the validation rows, at each validation, of the weights that the recipe would store
            if it ended there.
        kept: The update whose weights were stored, where an earlier one than the last was the best.
        rows: The rows that ran in the updates; None in a learn that an older perdure recorded.
    """

    loss: tuple[tuple[int, float], ...] = ()
    heartbeats: Mapping[str, Beats]
    fed: tuple[str, ...] = ()
    acted: tuple[str, ...] = ()
    tokens: int = 0
    memory_limits: tuple[tuple[int, int], ...] = omitted(())
    validation: tuple[tuple[int, float], ...] = omitted(())
    kept: int | None = omitted(None)
    rows: RowsRun | None = omitted(None)


@dataclass(frozen=True)
class Resources(Record):
    """Time and memory of a learn.

    Args:
        seconds: Wall time of each stage, without that of the stages inside it, summed over processes.
        peak_mib: Most memory in MiB of the process that ended the learn.
        peak_of: Which memory: what torch allocated on a device, or what the process had in memory.
        tokens_per_second: Tokens that ran forward in training, by the seconds of the updates; None without an update.
    """

    seconds: Mapping[str, float]
    peak_mib: int
    peak_of: str
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class NewTaskKl(Record):
    """KL(base || new state) on prompts of the task that was learned, in nats a token, along the base's own answers.

    It is computed over the base's 32 most likely tokens and the rest together, and so is a lower bound.

    Args:
        kl: Mean over the prompts.
        low: Lower end of its 95% interval.
        high: Upper end.
        n: Number of prompts.
    """

    kl: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class TriedScale(Record):
    """What the gate decided of an update that was scaled down.

    Args:
        scale: Share of the update.
        verdict: The decision.
        reason: The decision in a sentence.
        scores: Mean score of each task.
    """

    scale: float
    verdict: Word
    reason: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Repair(Record):
    """The repair of a learn that its gate refused: the same update, scaled down.

    Args:
        scale: The largest share of the update that passes the gate, else the largest that the gate does not refuse; None where
            it refused all.
        tried: The shares in the order in which they were tried.
        by: "scale" where the shares are of the whole update, "intruders" where they are of its intruder directions alone.
        directions: How many intruder directions it has, in all weights together.
    """

    scale: float | None
    tried: tuple[TriedScale, ...]
    by: Literal["scale", "intruders"] = omitted("scale")
    directions: int = omitted(0)


@dataclass(frozen=True, kw_only=True)
class LearnRecord(TrainingRecord):
    """The record of a learn.

    Args:
        train_seconds: Wall time of training, summed over processes.
        train_cpu_seconds: CPU time of training.
        eval_seconds: Wall time of scoring.
        updates: Number of updates.
        gate: The gate's verdict.
        settings: The recipe.
        warnings: Warnings for the user.
        resources: Time and memory; None in a learn that an older perdure recorded.
        new_task_kl: KL from the base on the new task's own prompts; None in a workspace without guards.
        repair: How its update was scaled down; None where it was not.
        copied: The slot, at the parent, that its adapter began as a copy of; None where it began as none.
    """

    train_seconds: float
    train_cpu_seconds: float
    eval_seconds: float
    updates: int
    gate: Verdict | GateOff
    settings: JsonObject
    warnings: tuple[str, ...]
    resources: Resources | None = omitted(None)
    new_task_kl: NewTaskKl | None = omitted(None)
    repair: Repair | None = omitted(None)
    copied: str | None = omitted(None)


@dataclass(frozen=True)
class RowCounts(Record):
    """Number of rows in memory after a learn.

    Args:
        rows: All rows.
        tasks: Rows of each task.
    """

    rows: int
    tasks: Mapping[str, int]
