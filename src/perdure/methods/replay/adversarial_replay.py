"""Adversarial replay: old rows are rehearsed where they are about to be forgotten, with their embeddings pushed uphill.

Source: Miyato, Dai & Goodfellow, "Adversarial Training Methods for Semi-Supervised Text Classification", ICLR 2017, for the
perturbation; Jin et al., "Gradient-based Editing of Memory Examples for Online Task-free Continual Learning", NeurIPS 2021, for
making replayed rows harder by a gradient in their inputs.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import ShareBelowOne, Strength
from perdure.core.seams import Draw, DrawContext, Method, State
from perdure.core.step import Step
from perdure.maths.perturbation import climb, mean_lengths
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class AdversarialReplay(Method):
    """Add strength x CE(drawn rows | embeddings e + d),   d = radius x (gradient of the row's CE in e, at length 1).

    The radius is epsilon x the mean length of the row's embeddings that its loss depends on, so epsilon means the same for
    every model, and a row is moved as far in any batch. A row that is known by heart gives no gradient as it is; moved, it
    does.

    Seams: draw (shares the rows that others draw from the pool), loss. State: none.
    Cost: two forwards and backwards over the drawn rows, mix / (1 - mix) of the new rows each, in addition to the shared forward.
    1.9 x naive's time (clinc5).
    When to use: memory is so small that replay learns it by heart. Beside `replay`, rows are learned clean and moved, as in
    Miyato et al.
    Deviation from Miyato: the length is relative to the embeddings' own instead of normalising these; moved rows take the place
    of clean ones. From Jin: rows are moved up their loss now, not up what the coming step adds to it, and memory keeps the
    clean row.
    """

    name: ClassVar[str] = "adversarial_replay"
    family: ClassVar[str] = "replay"
    seams: ClassVar[tuple[str, ...]] = ("draw", "loss")
    source: ClassVar[str] = "Miyato et al. 2017, arXiv 1605.07725; Jin et al. 2021, arXiv 2006.15294"

    mix: ShareBelowOne = Field(default=0.25, description="share of drawn rows in the final mix")
    strength: Strength = Field(default=1.0, description="factor of the moved rows' cross-entropy")
    epsilon: Strength = Field(
        default=0.02, description="length of a row's perturbation, in mean lengths of its embeddings"
    )
    balance: Literal["label", "task", "row"] = Field(default="label", description="what gets equal service")

    @property
    def active(self) -> bool:
        """It acts when rows are drawn, moved or not, and their loss counts."""
        return self.mix > 0 and self.strength > 0

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix."""
        return Draw(context.rows_for(self.mix), balance=self.balance, shared=False)

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean cross-entropy of the moved rows."""
        if self.name not in step.parts:
            return None
        at = step.embed(self.name).requires_grad_()
        clean = step.run(self.name, embeddings=at, grad=True)
        (up,) = torch.autograd.grad(clean.cross_entropy().sum(), at)
        embeddings = at.detach()
        moved = climb(torch.zeros_like(embeddings), up, self.epsilon * mean_lengths(embeddings, up), 1.0)
        rows = step.run(self.name, embeddings=embeddings + moved, grad=True)
        return self.strength * rows.mean(rows.cross_entropy())
