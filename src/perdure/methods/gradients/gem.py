"""Gradient episodic memory: the step goes against the gradient of no past task.

Source: Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import ShareBelowOne, Strength
from perdure.core.seams import Draw, DrawContext, Grads, Method, State
from perdure.core.step import Step
from perdure.maths.projection import project_cone
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Gem(Method):
    """Use the vector nearest to the gradient g that raises the loss of no past task, as seen on rows drawn from memory.

    g + sum_k v_k r_k,   v = argmin |g + sum_k v_k r_k|^2  subject to  v_k >= margin,   where g.r_k < 0 for some k; else g.

    r_k is the gradient of task k's part of the mean CE over all rows drawn, so that they sum to its gradient: with any
    conflict, at least `margin` x plain replay is added. Masks come first, clipping after; dot products are over all trainable
    parameters of one process; sharded ones would have to be reduced.

    Seams: draw, reference, gradient. State: none.
    Cost: its rows run separately, with one backward for each past task among the drawn rows; those gradients are in memory until
    the update turns: 4 bytes per trainable parameter and past task. 1.8 x naive's time (clinc5).
    When to use: few past tasks, each of which must not lose; with many, `a_gem` costs one backward whatever their number.
    Deviation: rows are drawn in each update instead of all of memory. The margin is relative to the mean over tasks, not the sum,
    and so does not grow with their number; it bounds v from below as in the authors' code (see `project_cone`). That code adds
    1e-3 to the diagonal of the references' dot products, and where gradients are small old losses still rise a little; here
    nothing is added. AdamW scales the turned gradient entry by entry, so the constraints hold exactly for plain SGD only.
    """

    name: ClassVar[str] = "gem"
    family: ClassVar[str] = "gradients"
    seams: ClassVar[tuple[str, ...]] = ("draw", "reference", "gradient")
    source: ClassVar[str] = "Lopez-Paz & Ranzato 2017, arXiv 1706.08840"

    mix: ShareBelowOne = Field(
        default=0.5, description="share of drawn rows in the final mix; few may show no conflict"
    )
    margin: Strength = Field(
        default=0.5, description="least weight of the memory's gradient where tasks conflict; the paper's gamma"
    )

    @property
    def active(self) -> bool:
        """Without rows there is no reference."""
        return self.mix > 0

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix, spread over the past tasks."""
        return Draw(context.rows_for(self.mix), balance="task")

    def reference(self, step: Step, state: State) -> dict[str, Tensor]:
        """Return each past task's part of the mean cross-entropy of the drawn rows."""
        if self.name not in step.drawn:
            return {}
        rows = step.drawn[self.name]
        tasks, losses = torch.as_tensor(rows.task), rows.cross_entropy()
        return {f"task {k}": rows.mean(losses * (tasks == k)) for k in tasks.unique().tolist()}

    def gradient(self, grads: Grads, refs: Mapping[str, Grads], step: Step, state: State) -> Grads:
        """Return the nearest gradients that go against no past task's."""
        return project_cone(grads, [refs[name] for name in sorted(refs)], self.margin)
