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

    Where weights are validated while they are trained (`eval_steps`, `keep: best`), the mean over the last `share` of the
    updates up to that validation is what is validated: a task that ends there is one with so few updates.

    Seams: watch, settle. State: `mean.<param>` float32, `count`: 4 bytes per trainable parameter. With validations,
    `mean<update>.<param>` and `count<update>` too, for each validation whose tail has begun: share x validations of them at most.
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
        """Fold the settled weights of this update into the mean, and into those of the validations whose tail has begun."""
        early = [end for end in step.ends if step.index <= end < step.total - 1]
        new = self._folded(step, state, "", step.total)
        for end in early:
            new |= self._folded(step, state, str(end), end + 1)
        if step.index in early:
            new["end"] = torch.tensor(step.index)  # where `settle` is called now, the task ends before its total
        return new

    def _folded(self, step: Step, state: State, end: str, total: int) -> State:
        """Return the mean and count of a tail that ends after `total` updates; nothing before it begins."""
        if step.index < total - round(self.share * total):
            return {}
        count = state.get(f"count{end}", torch.zeros(())) + 1
        new: State = {f"count{end}": count}
        for name, value in step.params.items():
            mean = state.get(f"mean{end}.{name}", torch.zeros((), device=value.device))
            new[f"mean{end}.{name}"] = mean + (wide(value.detach()) - mean) / count.to(value.device)
        return new

    def settle(self, model: Model, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the mean of each parameter; the weights themselves where no update fell in the tail."""
        end = str(int(state["end"])) if "end" in state else ""
        if f"count{end}" not in state:
            return {}, state
        return {name: state[f"mean{end}.{name}"].to(value.dtype) for name, value in model.params.items()}, {}
