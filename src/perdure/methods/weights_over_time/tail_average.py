"""Average of the last iterates: the mean of the weights over the end of the task, written once when the task closes.

Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; Kaddour, "Stop
Wasting My Time! Saving Days of ImageNet and BERT Training with LAtest Weight Averaging", 2022.
"""

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Share
from perdure.core.seams import Method, Model, State
from perdure.core.step import Step
from perdure.maths.precision import wide
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class TailAverage(Method):
    """Settle on the mean of the trainable weights over the last `share` of the updates.

    mean <- mean + (w - mean) / n  after each of those updates, n counting them.

    Seams: watch, settle. State: `mean.<param>` float32, `count`: 4 bytes per trainable parameter.
    Cost: one pass over the trainable parameters an update, in the last share only; no forward: no more than naive's
    time (clinc5).
    When to use: with a constant rate, in the place of its fall; with a rate that falls to zero it adds nothing.
    Deviation from SWA: the task's own decaying schedule instead of a cyclic or constant one.
    """

    name: ClassVar[str] = "tail_average"
    family: ClassVar[str] = "weights over time"
    seams: ClassVar[tuple[str, ...]] = ("watch", "settle")
    source: ClassVar[str] = "Izmailov et al. 2018, arXiv 1803.05407"

    share: Share = Field(default=0.25, description="last share of the updates that is averaged")

    @property
    def active(self) -> bool:
        """An empty tail averages nothing."""
        return self.share > 0

    def watch(self, step: Step, state: State) -> State:
        """Fold the settled weights of this update into the mean."""
        if step.index < step.total - round(self.share * step.total):
            return state
        count = state.get("count", torch.zeros(())) + 1
        new: State = {"count": count}
        for name, value in step.params.items():
            mean = state.get(f"mean.{name}", torch.zeros((), device=value.device))
            new[f"mean.{name}"] = mean + (wide(value.detach()) - mean) / count.to(value.device)
        return new

    def settle(self, model: Model, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the mean of each parameter; the weights themselves where no update fell in the tail."""
        if "count" not in state:
            return {}, state
        return {name: state[f"mean.{name}"].to(value.dtype) for name, value in model.params.items()}, {}
