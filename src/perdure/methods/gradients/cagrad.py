"""Conflict-averse gradient between new and replayed rows: near their mean, and best for whichever gains less.

Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import ShareBelowOne, Strength
from perdure.core.seams import Draw, DrawContext, Grads, Method, State
from perdure.core.step import Step, memory_reference
from perdure.maths.projection import avert_conflict, combine
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class CAGrad(Method):
    """Use 2 d,  d = argmax min(<g, d>, <r, d>)  subject to  |d - m| <= radius |m|,   m = (g + r) / 2.

    g is the update's gradient, r = strength x the gradient of the mean CE on rows drawn from memory.

    Twice, because a plain update is the sum of both: with radius 0 it is that of `replay` with this strength. It replays by
    itself; together with `replay`, g contains the memory's gradient already and it counts twice. Masks come first, clipping
    after; dot products are over all trainable parameters of one process; sharded ones would have to be reduced.

    Seams: draw, reference, gradient. State: none.
    Cost: its rows run separately, forward and backward, and no second pass over the new ones; three dot products over the
    parameters. 1.5 x naive's time (clinc5).
    When to use: replay in which new and old rows shall gain alike, also where they do not conflict outright.
    Deviation: two tasks, the new one and the memory; no division by 1 + radius^2 (see `avert_conflict`). AdamW scales the
    result entry by entry.
    """

    name: ClassVar[str] = "cagrad"
    family: ClassVar[str] = "gradients"
    seams: ClassVar[tuple[str, ...]] = ("draw", "reference", "gradient")
    source: ClassVar[str] = "Liu et al. 2021, arXiv 2110.14048"

    mix: ShareBelowOne = Field(default=0.25, description="share of drawn rows in the final mix")
    strength: Strength = Field(default=1.0, description="factor of the memory's gradient")
    radius: ShareBelowOne = Field(
        default=0.4, description="how far from the mean, relative to its length; the paper's c"
    )
    balance: Literal["label", "task", "row"] = Field(default="label", description="what gets equal service")

    @property
    def active(self) -> bool:
        """It acts when rows are drawn and count."""
        return self.mix > 0 and self.strength > 0

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix."""
        return Draw(context.rows_for(self.mix), balance=self.balance)

    def reference(self, step: Step, state: State) -> dict[str, Tensor]:
        """Return the mean cross-entropy of the drawn rows."""
        return memory_reference(step, self.name)

    def gradient(self, grads: Grads, refs: Mapping[str, Grads], step: Step, state: State) -> Grads:
        """Return twice the conflict-averse vector."""
        return avert_conflict(grads, combine([self.strength], [refs["memory"]]), self.radius) if refs else grads
