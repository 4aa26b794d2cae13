"""Adversarial training: also learn the new rows with their embeddings pushed to where the loss is higher.

Source: Miyato, Dai & Goodfellow, "Adversarial Training Methods for Semi-Supervised Text Classification", ICLR 2017 (fast
gradient method); Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018 (more steps).
"""

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Positive, Strength
from perdure.core.seams import Method, State
from perdure.core.step import Step
from perdure.maths.perturbation import climb, mean_lengths
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Adversarial(Method):
    """Add strength x CE(new rows | embeddings e + d),   d = radius x (gradient of the row's CE in e, at length 1).

    The radius is epsilon x the mean length of the row's embeddings that its loss depends on, so epsilon means the same for
    every model, and a row is moved as far in any batch. With more `steps`, each goes 2 / steps radii up the gradient at e + d,
    and d is cut back to the radius.

    Seams: loss. State: none; it acts in the first task too.
    Cost: `steps` + 1 forwards and backwards over the new rows an update. 3.3 x naive's time (clinc5).
    When to use: inputs vary in wording or are noisy, and few rows show it; by itself it retains what naive retains, and less the
    farther it pushes (clinc3, clinc5).
    Deviation: the length is relative to the embeddings' own instead of normalising these; PGD starts at 0, not at random, so
    that one step is the fast gradient method. Prompt and answer tokens are moved alike.
    """

    name: ClassVar[str] = "adversarial"
    family: ClassVar[str] = "robustness"
    seams: ClassVar[tuple[str, ...]] = ("loss",)
    source: ClassVar[str] = "Miyato et al. 2017, arXiv 1605.07725; Madry et al. 2018, arXiv 1706.06083"

    strength: Strength = Field(default=1.0, description="factor of the perturbed rows' cross-entropy")
    epsilon: Strength = Field(
        default=0.02, description="length of a row's perturbation, in mean lengths of its embeddings"
    )
    steps: Positive = Field(
        default=1, description="1 is the fast gradient method (FGM), more is projected gradient ascent (PGD)"
    )

    @property
    def active(self) -> bool:
        """Unmoved rows would only count the task loss twice."""
        return self.strength > 0 and self.epsilon > 0

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean cross-entropy of the perturbed new rows."""
        clean = step.embed("new")
        moved = torch.zeros_like(clean)
        for _ in range(self.steps):
            at = (clean + moved).requires_grad_()
            loss = step.run("new", embeddings=at, grad=True).cross_entropy().sum()
            (up,) = torch.autograd.grad(loss, at)
            moved = climb(moved, up, self.epsilon * mean_lengths(clean, up), 2 / self.steps)
        rows = step.run("new", embeddings=clean + moved, grad=True)
        return self.strength * rows.mean(rows.cross_entropy())
