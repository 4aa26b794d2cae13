"""I-LoRA: slow weights follow the fast ones, teach them on replayed rows, and are what a task settles on.

Source: Ren et al., "Analyzing and Reducing Catastrophic Forgetting in Parameter Efficient Tuning", 2024.
"""

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import ShareBelowOne, Strength
from perdure.core.seams import Draw, DrawContext, Method, Model, State
from perdure.core.step import Slice, Step
from perdure.maths.averages import moved_average
from perdure.maths.importance import copies, from_state, to_state
from perdure.maths.precision import wide
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class ILora(Method):
    """Add strength x CE(replayed rows) + consistency x MSE(h, h_slow) on them, and settle on the slow weights.

    slow <- decay x slow + (1 - decay) x w after every update, and the slow weights begin as the weights before the task. h and
    h_slow are the hidden states that the head reads at the label positions of the replayed rows, under the fast weights w and
    under the slow ones; MSE is the mean over the rows, their label tokens and the width. In the first task of a stream there is
    nothing to replay, and the slow weights begin as the first update left them. The next task goes on from the slow weights.

    Seams: prepare, draw (shares the rows of every method that draws from the pool), loss, watch, settle.
    State: `slow.<param>` float32: 4 bytes per trainable parameter.
    Cost: one forward of the drawn rows an update, without gradients, and one pass over the trainable parameters.
    When to use: with stored rows and many updates a task, as replay with ema; decay well below 1 - 1 / updates.
    Deviation: `decay` is .9; the authors' .25 makes slow weights that are hardly slow. The authors' code takes the elementwise
    maximum of both hidden states as target, in every layer, which pulls one way only; here it is the slow one's, as the paper
    prints it, of the last layer. Their average looks the slow adapter up under the fast one's name, so that it is the fast one,
    and the fast one is stored. The task's and the replayed rows' cross-entropy are summed here, not averaged; `mix` is .25
    instead of a half.
    """

    name: ClassVar[str] = "i_lora"
    family: ClassVar[str] = "weights over time"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "draw", "loss", "watch", "settle")
    source: ClassVar[str] = "Ren et al. 2024, arXiv 2402.18865"

    decay: ShareBelowOne = Field(default=0.9, description="weight of the old average; 0 is plain replay")
    consistency: Strength = Field(default=1.0, description="factor of the squared distance between the hidden states")
    mix: ShareBelowOne = Field(default=0.25, description="share of replayed rows in the final mix")
    strength: Strength = Field(default=1.0, description="factor of the replayed rows' cross-entropy")
    balance: Literal["label", "task", "row"] = Field(default="label", description="what gets equal service")

    @property
    def active(self) -> bool:
        """Without rows nothing is replayed or taught; ema is the average alone."""
        return self.mix > 0

    def prepare(self, model: Model, state: State) -> State:
        """Begin at the weights before the task; in the first task there are none worth keeping."""
        if model.first:
            return {}
        return to_state("slow", copies(model.params))

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix."""
        return Draw(context.rows_for(self.mix), balance=self.balance)

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean cross-entropy of the drawn rows + consistency x their distance from the slow weights'."""
        rows = step.drawn.get(self.name)
        if rows is None:
            return None
        term = self.strength * rows.mean(rows.cross_entropy())
        if not state or not self.consistency:
            return term
        slow = step.run(self.name, weights={name: state[f"slow.{name}"] for name in step.params})
        return term + self.consistency * rows.mean(squared_distance(rows, slow))

    def watch(self, step: Step, state: State) -> State:
        """Let the slow weights follow those of this update."""
        return to_state("slow", moved_average(from_state(state, "slow"), step.params, self.decay))

    def settle(self, model: Model, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the slow weights."""
        return {name: state[f"slow.{name}"].to(value.dtype) for name, value in model.params.items()}, {}


def squared_distance(rows: Slice, slow: Slice) -> Tensor:
    """Return the mean over the width of (h - h_slow)^2 per token (tokens,); h_slow has no gradient."""
    return (wide(rows.hidden) - wide(slow.hidden).detach()).square().mean(-1)  # type: ignore[arg-type]
