"""Hierarchical regularisation: as synaptic intelligence, with a factor for each layer by how important the whole of it is.

Source: Song et al., "How to Alleviate Catastrophic Forgetting in LLMs Finetuning? Hierarchical Layer-Wise and Element-Wise
Regularization", 2025.
"""

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import AboveZero, Strength
from perdure.core.seams import Method, Model, State
from perdure.core.step import Step
from perdure.maths.anchors import quadratic
from perdure.maths.importance import (
    added,
    along_path,
    copies,
    from_state,
    layer_factors,
    layer_of,
    path_importance,
    to_state,
    unit_mean,
)
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Hler(Method):
    """Add strength x 1/2 sum_l c_l sum_{i in l} Omega_i (w_i - w*_i)^2, c_l the factor of layer l.

    w* are the weights before the task. Omega is the path integral of si: over each task, -(gradient of the task loss) x
    (the optimizer's real step), over the squared way plus xi, which is `damping` x the mean squared way. c_l = layers x
    softmax over l of the root mean square of Omega, scaled to mean 1, in layer l, so that factors have mean 1 and do not
    sharpen as tasks add up; a layer is a block of the model, by its number in the parameters' names.

    The paper's two phases are two tasks: learn a general corpus first, then the domain.

    Seams: prepare, loss, watch, measure. State: `omega.<param>`, 4 bytes per trainable parameter, stored; `pull.<param>`,
    `path.<param>` and `anchor.<param>`, 12 bytes, during a task. Cost: no forward; a few passes over the weights an update.
    1.1 x naive's time (clinc5).
    When to use: as si, when the tasks before live in some of the layers. Together with lwf, it retained most of what stores no
    rows (clinc5).
    Deviation: importance adds up over all tasks before instead of one general task; Omega has mean 1 per task, so the softmax
    takes root mean squares instead of L2 norms (which would grow with the layer's size and leave one layer); the factor 1/2.
    """

    name: ClassVar[str] = "hler"
    family: ClassVar[str] = "regularisation"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "loss", "watch", "measure")
    source: ClassVar[str] = "Song et al. 2025, arXiv 2501.13669"
    anchors: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("before", "task_grad")

    strength: Strength = Field(default=0.1, description="factor, at an importance of mean 1")
    damping: AboveZero = Field(default=1.0, description="xi in units of the task's mean squared way")

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    def prepare(self, model: Model, state: State) -> State:
        """Anchor the weights that the last task left, begin a new path there, and weigh the layers."""
        now, omega = copies(model.params), from_state(state, "omega")
        nothing = {name: torch.zeros_like(value) for name, value in now.items()}
        factors = layer_factors(unit_mean(omega) if omega else omega)
        pull = {name: factors[layer_of(name)] * value for name, value in omega.items()}
        return state | to_state("anchor", now) | to_state("path", nothing) | to_state("pull", pull)

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the penalty; None before a task is known."""
        pull = from_state(state, "pull")
        if not pull:
            return None
        return step.once(self.strength * quadratic(step.params, from_state(state, "anchor"), pull))

    def watch(self, step: Step, state: State) -> State:
        """Add what this update's moves took off the task loss."""
        path = along_path(from_state(state, "path"), step.task_grad, step.before, step.params)
        return state | to_state("path", path)

    def measure(self, model: Model, state: State) -> State:
        """Add the importance that this task's path shows."""
        anchors = from_state(state, "anchor")
        moved = {name: value.detach() - anchors[name] for name, value in model.params.items()}
        fresh = unit_mean(path_importance(from_state(state, "path"), moved, self.damping))
        return to_state("omega", added(from_state(state, "omega"), fresh))
