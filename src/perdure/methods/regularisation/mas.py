"""Memory aware synapses: weights that the model's outputs are sensitive to are held where the last task left them.

Source: Aljundi et al., "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018.
"""

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Positive, Strength
from perdure.core.seams import Method, Model, State
from perdure.core.step import Step
from perdure.maths.anchors import quadratic
from perdure.maths.importance import added, copies, from_state, mean_size, to_state, unit_mean
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Mas(Method):
    """Add strength x 1/2 sum_i Omega_i (w_i - w*_i)^2, Omega_i how much weight i moves the outputs.

    w* are the weights before the task. Omega_i = sum over tasks of the mean over rows of |d ||F(x)||^2 / d w_i|, F the
    logits at label positions, centred over the vocabulary (a constant on all of them changes no prediction). It needs no
    labels. Each task's part is divided by its mean over all trainable weights, so that strength means what ewc's does.

    Seams: prepare, loss, measure. State: `omega.<param>`, 4 bytes per trainable parameter, stored; `anchor.<param>`, 4 bytes,
    during a task. Cost: no forward in training; after each task one forward and backward over `size` rows.
    1.4 x naive's time (clinc5).
    When to use: as ewc; it also guards outputs that the loss of the old task did not depend on.
    Deviation: the factor 1/2, mean 1 per task, and centred logits.
    """

    name: ClassVar[str] = "mas"
    family: ClassVar[str] = "regularisation"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "loss", "measure")
    source: ClassVar[str] = "Aljundi et al. 2018, arXiv 1711.09601"
    anchors: ClassVar[bool] = True

    strength: Strength = Field(default=0.1, description="factor, at an importance of mean 1")
    size: Positive = Field(default=256, description="rows of a task that are measured")

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    def prepare(self, model: Model, state: State) -> State:
        """Anchor the weights that the last task left."""
        return state | to_state("anchor", copies(model.params)) if state else state

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the penalty; None before a task is known."""
        omega = from_state(state, "omega")
        if not omega:
            return None
        return step.once(self.strength * quadratic(step.params, from_state(state, "anchor"), omega))

    def measure(self, model: Model, state: State) -> State:
        """Add the sensitivity of the outputs on this task's rows."""
        fresh = unit_mean(mean_size(model.gradients("new", self.size, "outputs")))
        return to_state("omega", added(from_state(state, "omega"), fresh))
