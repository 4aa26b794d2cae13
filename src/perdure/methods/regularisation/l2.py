"""A penalty on how far the weights are from where they started, and from where the last task left them.

Source: Li, Grandvalet & Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Strength
from perdure.core.seams import Method, Model, State
from perdure.core.step import Step
from perdure.maths.anchors import product_gap, quadratic
from perdure.maths.importance import copies, from_state, to_state
from perdure.maths.lora_pairs import DOWN, factors, paired
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class L2(Method):
    """Add strength x 1/2 ||w - w*||^2 for each anchor w*; of a LoRA pair, strength x 1/2 ||B A - B* A*||_F^2.

    Anchors: "previous", the weights that the last task left; "start", the model before the stream (L2-SP: of a LoRA pair
    B* A* = 0, the base model itself; of other weights what they were when the method first ran), which acts from the first
    task on; or "both", the sum. The product counts, not its factors: B A is what changes the model, and many B, A give one.

    Seams: prepare, loss, measure. State: `previous.<param>`, 4 bytes per trainable parameter, during a task;
    `start.<param>` of weights that are no LoRA pair, 4 bytes, stored. Cost: no forward; Gram matrices of the factors.
    1.0 x naive's time (clinc5).
    When to use: a first guard that needs no data and no importance. "start" guards what the base model could do, and pulls
    back what the tasks before taught as well.
    Deviation from L2-SP: no second penalty on new heads (all is one adapter), and the scale lora_alpha / r is left out.
    """

    name: ClassVar[str] = "l2"
    family: ClassVar[str] = "regularisation"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "loss", "measure")
    source: ClassVar[str] = "Li et al. 2018, arXiv 1802.01483"
    anchors: ClassVar[bool] = True

    strength: Strength = Field(
        default=0.3, description="factor; 1 pulls a weight by its distance, a LoRA product likewise"
    )
    anchor: Literal["start", "previous", "both"] = Field(
        default="previous", description="weights from which the distance is measured"
    )

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    def prepare(self, model: Model, state: State) -> State:
        """Return the anchors: the weights as they are, unless a start is known already."""
        now = copies(model.params)
        begun: State = {}
        if self.anchor != "previous":
            begun |= to_state(
                "start", {n: v for n, v in now.items() if not paired(n, now)} | from_state(state, "start")
            )
        if self.anchor != "start" and not model.first:
            begun |= to_state("previous", now)
        return begun

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the penalty of each anchor."""
        previous = from_state(state, "previous")
        terms = [gap(step.params, previous)] if previous else []
        if self.anchor != "previous":
            terms.append(gap(step.params, from_state(state, "start"), pretrained=True))
        return step.once(self.strength * torch.stack(terms).sum()) if terms else None

    def measure(self, model: Model, state: State) -> State:
        """Return the start of the stream."""
        return to_state("start", from_state(state, "start"))


def gap(params: Mapping[str, Tensor], anchors: Mapping[str, Tensor], pretrained: bool = False) -> Tensor:
    """Return half the squared distance from `anchors`: of LoRA pairs that of the products (from 0 if `pretrained`)."""
    downs = [name for name in params if DOWN in name and paired(name, params)]
    terms = []
    if downs:
        old = None if pretrained else [factors(anchors, name) for name in downs]
        terms.append(0.5 * product_gap([factors(params, name) for name in downs], old))
    if plain := {name: value for name, value in anchors.items() if not paired(name, params)}:
        terms.append(quadratic(params, plain))
    return torch.stack(terms).sum()
