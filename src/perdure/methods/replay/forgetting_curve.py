"""Replay on a forgetting curve: reviews at growing intervals, in a time measured by how far the weights have moved.

Source: Feng et al., "FOREVER: Forgetting Curve-Inspired Memory Replay for Language Model Continual Learning", ACL 2026.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Positive, ShareAboveZero, ShareBelowOne, Strength
from perdure.core.seams import Draw, DrawContext, Method, Model, State
from perdure.core.step import Step
from perdure.maths.importance import copies, to_state
from perdure.maths.precision import wide
from perdure.methods.registry import register

DAYS = (1, 2, 4, 7, 15, 30, 60, 90, 120)  # Ebbinghaus's, as the authors' code continues them


@register
@dataclass(frozen=True)
class ForgettingCurve(Method):
    """Replay the whole memory when the model is 1, 2, 4, 7, 15, ... days old; add strength x (CE + pull x |w - w0|^2) then.

    age = sum of m_t,   m_t = |w_t - w_(t-1)|,   a day = the sum over the first `day` share of the task's updates
    pull = anchor x clip(mean of m lately / mean of m in the first day, 0.5, 3)

    A review that is due is spread over the updates that follow, `mix` of each, until `passes` passes over the memory are done.
    w0 are the weights at the start of the task; "lately" is an average that takes a twentieth of each update. Where the weights
    move fast, reviews come often and hold harder.

    Seams: prepare, draw, loss, watch. State: `anchor.<param>`, 4 bytes per trainable parameter, and four numbers.
    Cost: no extra forward; the shared forward is mix / (1 - mix) wider while a review lasts; a copy of the trainable parameters,
    and two passes over them an update. 1.2 x naive's time (clinc5).
    When to use: rehearsal has a price, and tasks are long enough for days to pass; `replay` rehearses in every update.
    Deviation: a day is a share of the task instead of 24 updates, which is more than a small task has. A review joins updates of
    the new task instead of epochs on memory alone. The paper's gain gamma in clip(1 + gamma (r - 1)), for which it states no
    value, is 1.
    """

    name: ClassVar[str] = "forgetting_curve"
    family: ClassVar[str] = "replay"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "draw", "loss", "watch")
    source: ClassVar[str] = "Feng et al. 2026, arXiv 2601.03938"
    needs: ClassVar[tuple[str, ...]] = ("before", "row_losses")

    mix: ShareBelowOne = Field(default=0.5, description="share of replayed rows in an update of a review")
    strength: Strength = Field(default=1.0, description="factor of both terms")
    anchor: Strength = Field(
        default=1e-3, description="pull to the weights before the task, per squared distance, while a review lasts"
    )
    day: ShareAboveZero = Field(default=0.05, description="updates that make a day, as a share of the task's")
    passes: Positive = Field(default=1, description="passes over the memory a review; the authors take 2")
    balance: Literal["label", "task", "row"] = Field(default="row", description="what gets equal service")

    @property
    def active(self) -> bool:
        """It acts when rows are drawn and their loss counts."""
        return self.mix > 0 and self.strength > 0

    def prepare(self, model: Model, state: State) -> State:
        """Copy the weights at the start of the task."""
        return to_state("anchor", copies(model.params))

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of what the reviews that are due have left, at most the share `mix` of this update."""
        due = self.passes * context.pools.get("replay", 0) * reviews(state) - int(state.get("rows", torch.zeros(())))
        most = max(1, round(self.mix / (1 - self.mix) * context.new_rows))
        return Draw(min(most, due), balance=self.balance) if due > 0 else None

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean cross-entropy of the replayed rows and the pull to the start."""
        rows = step.drawn.get(self.name)
        if rows is None:
            return None
        loss = rows.cross_entropy()
        if self.anchor:
            gaps = [(value - state[f"anchor.{name}"]).square().sum() for name, value in step.params.items()]
            at_first = state["day"] / self.first_day(step.total)
            haste = float((state["lately"] / at_first).clamp(0.5, 3.0))
            loss = loss + self.anchor * haste * torch.stack(gaps).sum()
        return self.strength * rows.mean(loss)

    def watch(self, step: Step, state: State) -> State:
        """Let the model age by the length of this update, and count the rows that it replayed."""
        gaps = [wide(value.detach() - step.before[name]).square().sum() for name, value in step.params.items()]
        moved = torch.stack(gaps).sum().sqrt().cpu()
        age, past = state.get("age", torch.zeros(())) + moved, step.index + 1
        rows, _ = step.row_losses.get(self.name, ((), ()))
        new: State = {**state, "age": age, "rows": state.get("rows", torch.zeros(())) + len(rows)}
        if past <= self.first_day(step.total):
            return new | {"lately": age / past} | ({"day": age} if past == self.first_day(step.total) else {})
        return new | {"lately": 0.95 * state["lately"] + 0.05 * moved}

    def first_day(self, total: int) -> int:
        """Return the updates of the first day."""
        return max(1, round(self.day * total))


def reviews(state: State) -> int:
    """Return how many reviews have come due: none before the first day is over, or while nothing moves."""
    if not state.get("day"):
        return 0
    return sum(bool(state["age"] >= day * state["day"]) for day in DAYS)
