"""Averaged gradient episodic memory: the step never goes against the gradient of the replayed rows.

Source: Chaudhry et al., "Efficient Lifelong Learning with A-GEM", ICLR 2019.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import ShareBelowOne
from perdure.core.seams import Draw, DrawContext, Grads, Method, State
from perdure.core.step import Step, memory_reference
from perdure.maths.projection import project_conflict
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class AGem(Method):
    """Take from the gradient g what is against r, the gradient of the mean CE on rows drawn from memory.

    g - (g.r / r.r) r   where g.r < 0, else g: the nearest vector along which the loss of the memory does not grow.

    g is the whole update's, with what other methods add to the loss; both are masked first, and clipping comes after. The dot
    products are over all trainable parameters of one process; sharded ones would have to be reduced.

    Seams: draw, reference, gradient. State: none.
    Cost: its rows run separately, forward and backward, and no second pass over the new ones; two dot products over the
    parameters. 2.3 x naive's time (clinc5).
    When to use: old rows may be seen but not learned by heart: it takes no step towards them. Replay, and `gem`, keep far more
    (clinc5).
    Deviation: rows are drawn evenly over labels, those least served first, instead of at random. AdamW scales the turned gradient
    entry by entry, so the sign holds exactly for plain SGD only.
    """

    name: ClassVar[str] = "a_gem"
    family: ClassVar[str] = "gradients"
    seams: ClassVar[tuple[str, ...]] = ("draw", "reference", "gradient")
    source: ClassVar[str] = "Chaudhry et al. 2019, arXiv 1812.00420"

    mix: ShareBelowOne = Field(
        default=0.5,
        description="share of drawn rows in the final mix; few make a noisy reference, which protects little",
    )
    balance: Literal["label", "task", "row"] = Field(default="label", description="what gets equal service")

    @property
    def active(self) -> bool:
        """Without rows there is no reference."""
        return self.mix > 0

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix."""
        return Draw(context.rows_for(self.mix), balance=self.balance)

    def reference(self, step: Step, state: State) -> dict[str, Tensor]:
        """Return the mean cross-entropy of the drawn rows."""
        return memory_reference(step, self.name)

    def gradient(self, grads: Grads, refs: Mapping[str, Grads], step: Step, state: State) -> Grads:
        """Return the gradients without what goes against the memory's."""
        return project_conflict(grads, refs["memory"]) if refs else grads
