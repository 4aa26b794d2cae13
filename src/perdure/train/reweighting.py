"""The factors of label tokens in the task loss, which the owner of the seam `weight` gives."""

from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.core.errors import BadSpec, Diverged
from perdure.core.recipe import Recipe
from perdure.core.seams import State
from perdure.core.step import Step


@dataclass(frozen=True)
class Reweighted:
    """The task loss of a micro-batch under the factors of a method.

    Args:
        owner: Name of the method.
        loss: The task loss with the factors.
        change: The same less the task loss without them.
        weight: This micro-batch's share of the mean factor over the label tokens.
    """

    owner: str
    loss: Tensor
    change: Tensor
    weight: float


def reweighted(recipe: Recipe, step: Step, states: dict[str, State], losses: Tensor, total: int) -> Reweighted | None:
    """Return the task loss under the factors that a method gives; None without such a method, or without factors.

    Args:
        recipe: Names the method.
        step: The micro-batch.
        states: The state of each method, by name.
        losses: Losses of the label tokens of the new rows (tokens,), in nats.
        total: Updates of the whole task.

    Raises:
        BadSpec: The factors are not one for each label token.
        Diverged: A factor is not finite.
    """
    owner, new = recipe.owner("weight"), step.new
    if owner is None or new is None:
        return None
    factors = owner.weight(step, states[owner.name])
    if factors is None:
        return None
    if factors.shape != losses.shape:
        raise BadSpec(
            f"method {owner.name} gave factors of shape {tuple(factors.shape)} for {len(losses)} label tokens; return one each"
        )
    if not torch.isfinite(factors).all():
        raise Diverged(
            f"method {owner.name} gave a factor that is not finite at update {step.index} of {total}; lower the learning rate"
        )
    factors = factors.detach()
    loss = new.mean(factors * losses)
    return Reweighted(owner.name, loss, loss - new.mean(losses), new.mean(factors).item())
