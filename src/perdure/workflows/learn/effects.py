"""What a learn should have done and did not: methods without an effect, and a task that was not learned."""

from typing import TYPE_CHECKING

from perdure.core.defaults import DEFAULT_RECIPE
from perdure.ledger.records import Score
from perdure.workflows.learn.plan import Plan

if TYPE_CHECKING:
    from perdure.train.learner import Learner

ACTING = {"weight", "loss", "settle", "mask", "gradient"}  # seams whose methods should have one
ROOM = 0.05  # share of the energy of a task's inputs that earlier tasks must leave, or little can be learned
FAINT = 0.05  # share of the task loss that token factors must leave, or little is learned


def idle(plan: Plan, learner: "Learner") -> list[str]:
    """Name the methods that had something to act on, or were meant to, and did nothing over the whole task."""
    idle = []
    anew = plan.first and bool(plan.parent.tasks)
    record = learner.record
    for method in learner.recipe.methods:
        beats = record.heartbeats.get(method.name, [])
        shown = any(beat.acted for _, beat in beats)
        could = method.name in record.fed if "draw" in method.seams else (bool(beats) and not _begins(plan)) or anew
        if could and not shown and method.name not in record.acted and ACTING & set(method.seams):
            why = _no_task_before(plan) if anew else "check its fields"
            idle.append(f"method {method.name} had no effect over the whole task; {why}, or leave it out")
    return idle


def faint(learner: "Learner") -> list[str]:
    """Say that a method left out nearly all of the task loss."""
    said, plain = [], dict(learner.record.loss)
    for method in learner.recipe.owners("weight"):
        beats = [(plain[update], beat.loss or 0.0) for update, beat in learner.record.heartbeats.get(method.name, [])]
        whole = sum(loss for loss, _ in beats)
        left = 1 + sum(change for _, change in beats) / whole if whole else 1.0
        if left < FAINT:
            said.append(
                f"method {method.name} left {left:.1%} of the task's loss, so that little of it is learned; it is for long "
                "answers of which a model knows most: choose another scheme, lower its strength, or leave it out"
            )
    return said


def _begins(plan: Plan) -> bool:
    """Return whether the task is the first of the stream, before which no method has anything to act on."""
    return plan.first and not plan.parent.tasks


def _no_task_before(plan: Plan) -> str:
    if plan.continued is None:
        return "start: base leaves it no task before"
    return f"{plan.task.name} is learned on the base model alone, which leaves it no task before"


def crowded(learner: "Learner") -> list[str]:
    """Say that the inputs of the task lie in directions of earlier tasks, outside which its adapter has to stay."""
    beats = [(name, beat.outside) for name, of in learner.record.heartbeats.items() for _, beat in of]
    return [
        f"{name} leaves {outside:.1%} of the energy of this task's inputs, the rest lies in directions of earlier tasks: little "
        f"can be learned there; lower methods.{name}.energy from the first task on, or take per_task"
        for name, outside in beats
        if outside is not None and outside < ROOM
    ]


def unmoved(task: str, before: Score, now: Score, *, trained: bool = True) -> list[str]:
    """Say that a task was not learned: its score did not rise, though it could.

    Args:
        task: Name of the task, for people.
        before: Its score at head.
        now: Its score at the draft.
        trained: Whether the recipe trains weights.
    """
    if now.score > before.score or before.score >= 1:
        return []
    advice = (
        "train longer (num_train_epochs), in smaller batches, or at another learning_rate"
        if trained
        else f"the features of the untrained model may not show its labels: learn it with a recipe that trains ({DEFAULT_RECIPE})"
    )
    return [f"the score of {task} did not rise ({before.score:.1%} before, {now.score:.1%} now); {advice}"]
