"""Replay of general instructions: what the base model could do before any task is rehearsed.

Source: Scialom et al., "Fine-tuned Language Models are Continual Learners", EMNLP 2022 (rehearsal of instruction data);
the divergence to the base model follows Li & Hoiem, "Learning without Forgetting", 2016.
"""

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Count, Positive, ShareBelowOne, Strength, Temperature
from perdure.core.seams import Column, Draw, DrawContext, Method, State
from perdure.core.step import Step
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class InstructionReplay(Method):
    """Add strength x CE + distill x T^2 KL(base model || model) on rows of general instruction data.

    Acts when the task names `general` data. The base model's top k log-probabilities are computed once, with the adapter
    off, when the rows enter memory: no second copy of a model, and no second forward while training.

    Seams: draw, loss. State: none.
    Cost: no row runs twice: mix / (1 - mix) more rows, in a forward of their own where they are much longer than the others or
    begin otherwise. Once, one forward over the stored rows without gradients. 6 x top_k bytes a label token in memory.
    1.8 x the time of `dual_replay` without it (clinc5_instruct: short rows of the task, long general ones).
    When to use: the model was tuned to follow instructions before any task and has to go on doing so.
    Deviation from Scialom et al.: general instructions instead of the older tasks', and trained towards the base model's outputs
    on them rather than learned again.
    """

    name: ClassVar[str] = "instruction_replay"
    family: ClassVar[str] = "replay"
    seams: ClassVar[tuple[str, ...]] = ("draw", "loss")
    source: ClassVar[str] = "Scialom et al. 2022, arXiv 2205.12393"
    pool: ClassVar[str] = "general"
    column: ClassVar[str] = "base"  # not "teacher", whose k another method chooses

    mix: ShareBelowOne = Field(default=0.1, description="share of general rows in the final mix")
    strength: Strength = Field(default=0.0, description="factor of the cross-entropy with the written answers")
    distill: Strength = Field(default=1.0, description="factor of the divergence to the base model")
    temperature: Temperature = Field(default=1.0, description="of both distributions")
    size: Count = Field(
        default=200,
        description="most general rows in memory; a task adds no more than it draws, those nearest to its rows in length",
    )
    top_k: Positive = Field(default=32, description="log-probabilities stored for each label token")

    @property
    def active(self) -> bool:
        """It acts when rows are drawn and either term has a weight."""
        return self.mix > 0 and (self.strength > 0 or self.distill > 0)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The base model's distribution, for the general rows."""
        return (Column(self.column, "general", "base", self.top_k),)

    @property
    def general_rows(self) -> int:
        """Most general rows in memory."""
        return self.size

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix from the pool of general rows."""
        return Draw(context.rows_for(self.mix), balance="row")

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return the weighted sum of both terms."""
        if self.name not in step.drawn:
            return None
        rows = step.drawn[self.name]
        terms = []
        if self.strength:
            terms.append(self.strength * rows.mean(rows.cross_entropy()))
        if self.distill and (kl := rows.divergence(self.column, self.temperature)) is not None:
            terms.append(self.distill * rows.mean(kl))
        return sum(terms[1:], terms[0]) if terms else None
