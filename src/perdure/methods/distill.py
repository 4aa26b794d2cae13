"""Distillation on replayed rows: stay near what the model said about them when they were stored.

Source: Hinton et al. 2015 for the loss; Rebuffi et al., "iCaRL", CVPR 2017 and Buzzega et al., "Dark Experience for General
Continual Learning", NeurIPS 2020 for distilling on stored rows with stored outputs.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from perdure.core.fields import Positive, Strength, Temperature
from perdure.core.seams import Draw, DrawContext, State
from perdure.core.step import Step
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Distill:
    """Add strength x T^2 KL(teacher || model) on the rows that replay draws.

    The teacher is the model at the entry that last wrote the row's column: its `top_k` log-probabilities and the mass of the
    rest, stored beside the row, at label positions only. `refresh` rewrites the columns of older rows after every task.

    Seams: draw (the same rows as every method that draws from the pool), loss. State: none.
    Cost: no extra forward; 6 x top_k bytes a label token in memory, and one forward over the rows whose column is written.
    Deviation from DER: KL over the top k and a tail bucket instead of a squared error over all logits.
    """

    name: ClassVar[str] = "distill"
    family: ClassVar[str] = "distillation"
    seams: ClassVar[tuple[str, ...]] = ("draw", "loss")
    source: ClassVar[str] = "Hinton et al. 2015, arXiv 1503.02531; Buzzega et al. 2020, arXiv 2004.07211"
    column: ClassVar[str] = "teacher"

    strength: Strength = 1.0  # factor of the divergence
    temperature: Temperature = 1.0  # above 0; T^2 keeps the size of the gradient
    top_k: Positive = 32  # log-probabilities stored a label token
    refresh: bool = False  # rewrite the columns of all rows after each task, not only those of new rows

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is above 0, got {self.temperature}")

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Ask for the teacher's column of the rows that replay draws; by itself it draws none."""
        return Draw(0, columns=(self.column,))

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean divergence of the replayed rows."""
        if self.name not in step.drawn:
            return None
        rows = step.drawn[self.name]
        kl = rows.divergence(self.column, self.temperature)
        return None if kl is None else self.strength * rows.mean(kl)
