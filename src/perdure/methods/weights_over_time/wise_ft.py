"""Interpolation with the previous head: part of the way back, where that costs the new task little.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, section 3 (WiSE-FT).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.errors import BadSpec
from perdure.core.fields import Positive, Share
from perdure.core.seams import Method, Model, State
from perdure.maths.importance import copies, from_state, to_state
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class WiseFt(Method):
    """Settle on (1 - s) x w + s x the weights before the task.

    `choose: validation` tries s = 0, 1/steps, ..., 1 of `share` and takes the least loss on rows that are held out: how far
    back the new task can spare to go. `both` adds the loss on memory, the mean over rows of each counting the same, and goes
    further back; it did no better (clinc3, clinc5), and wants replay or another method that draws in the recipe. No test row is
    looked at. `choose: fixed` takes s = `share`.

    In the first task of a stream it does nothing.

    Seams: prepare, settle. Needs: validation rows, if they choose.
    State: `anchor.<param>` float32, 4 bytes per trainable parameter.
    Cost: nothing an update; if chosen, `steps` + 1 forwards over at most `size` validation rows (and as many of memory), and the
    train rows that are held out where the task names no validation rows (`validation_share`). With replay 1.2 x naive's time
    (clinc5).
    When to use: at the end of any recipe without another method that settles; cheap, and it needs no tuning.
    Source: Wortsman et al. 2022, arXiv 2109.01903.
    Deviation: the previous head takes the place of the zero-shot model, and the paper's alpha is 1 - s. LoRA factors are
    interpolated, not their product, whose interpolation would not fit the rank; the two differ by s(1 - s) (B - B*)(A - A*).
    """

    name: ClassVar[str] = "wise_ft"
    family: ClassVar[str] = "weights over time"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "settle")
    source: ClassVar[str] = "Wortsman et al. 2022, arXiv 2109.01903"

    share: Share = Field(
        default=0.5, description="of the weights before the task: what is taken, or the largest that is tried"
    )
    choose: Literal["validation", "both", "fixed"] = Field(
        default="validation", description="held-out rows, these and memory, or none"
    )
    steps: Positive = Field(default=5, description="shares that are tried besides 0")
    size: Positive = Field(default=256, description="rows of each kind that choose")

    @property
    def active(self) -> bool:
        """No way back, no method."""
        return self.share > 0

    @property
    def needs(self) -> tuple[str, ...]:
        """Rows that choose the share."""
        return () if self.choose == "fixed" else ("validation",)

    def prepare(self, model: Model, state: State) -> State:
        """Keep the weights before the task; nothing in the first.

        Raises:
            BadSpec: Validation rows are to choose, and there are none.
        """
        if model.first:
            return {}
        if self.needs and not any(True for _ in model.slices("validation", 1)):
            raise BadSpec(
                "wise_ft chooses its share on validation rows, and there are none; give some, or set choose: fixed"
            )
        return to_state("anchor", copies(model.params))

    def settle(self, model: Model, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the interpolated weights; the weights themselves in the first task."""
        if not state:
            return {}, {}
        share = self.share
        if self.choose != "fixed":
            grid = [self.share * i / self.steps for i in range(self.steps + 1)]
            share = min(grid, key=lambda s: self._loss(model, between(model.params, state, s)))  # the least of equals
        return between(model.params, state, share), {}

    def _loss(self, model: Model, weights: dict[str, Tensor]) -> float:
        """Return the loss that chooses, in nats: of validation rows, plus of memory if it is wanted and there is one."""
        chosen = ("validation", "replay") if self.choose == "both" else ("validation",)
        return sum(model.nll(rows, weights, self.size) or 0.0 for rows in chosen)


def between(params: Mapping[str, Tensor], state: State, share: float) -> dict[str, Tensor]:
    """Return (1 - share) x each parameter + share x its anchor, in the parameter's dtype; the parameters to the bit at 0."""
    return {
        name: torch.lerp(params[name].detach().to(old.dtype), old, share).to(params[name].dtype)
        for name, old in from_state(state, "anchor").items()
    }
