"""Distillation: stay near a teacher's outputs, stored with the replayed rows, or a larger model's on the new rows.

Source: Hinton et al. 2015 for the loss; Rebuffi et al., "iCaRL", CVPR 2017 and Buzzega et al., "Dark Experience for General
Continual Learning", NeurIPS 2020 for distilling on stored rows with stored outputs.
"""

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Count, ShareBelowOne, Strength, Temperature
from perdure.core.seams import Column, Draw, DrawContext, Method, State
from perdure.core.step import Step
from perdure.maths.divergence import Kind
from perdure.methods.registry import register

WHOLE = 2**31 - 1  # a top_k that every vocabulary is below


@register
@dataclass(frozen=True)
class Distill(Method):
    """Add strength x T^2 KL(teacher || model) on rows that a teacher has spoken about.

    Teacher `settled`: on the rows that replay draws, the model at the entry that last wrote the row's column. `refresh` rewrites
    the columns of older rows after every task, and so what `der` and `der_pp` hold them to. Teacher `base`, or the folder or hub
    id of another model with the same tokenizer: that model, on replayed rows, on the new rows (classic teacher-student
    distillation), or on `both`; the terms of `both` are added. It runs once for each row and is then dropped; it never trains.

    A column is the teacher's `top_k` log-probabilities and the mass of the rest, at label positions; `top_k: 0` stores the whole
    vocabulary, and the divergence is then the exact one. `divergence`: forward covers all that the teacher gives weight to,
    reverse avoids what the teacher gives none, symmetric is half of each. The term carries T^2.

    Seams: draw (the same rows as every method that draws from the pool), loss. State: none.
    Cost: no forward in an update (1.00 x replay); 6 x top_k bytes a label token in memory (300 kB where a vocabulary of 50 000 is
    stored whole), twice that with new rows, and one forward of the teacher over the rows whose column is written. With a quarter
    of replayed rows 1.3 x naive's time (clinc5, `dual_replay`).
    When to use: with replay, where few rows of old tasks are stored; with another model, where a better and larger one exists.
    Deviation from DER: KL over the top k and a tail bucket instead of a squared error over all logits. From Hinton: the
    cross-entropy keeps factor 1.
    """

    name: ClassVar[str] = "distill"
    family: ClassVar[str] = "distillation"
    seams: ClassVar[tuple[str, ...]] = ("draw", "loss")
    source: ClassVar[str] = "Hinton et al. 2015, arXiv 1503.02531; Buzzega et al. 2020, arXiv 2004.07211"

    strength: Strength = Field(default=1.0, description="factor of the divergence")
    temperature: Temperature = Field(default=1.0, description="T^2 preserves the size of the gradient")
    top_k: Count = Field(
        default=32, description="log-probabilities stored for each label token; 0 stores the whole vocabulary"
    )
    refresh: bool = Field(
        default=False, description="rewrite the columns of all rows after each task, not only those of new rows"
    )
    divergence: Kind = Field(default="forward", description="direction: forward, reverse or symmetric")
    teacher: str = Field(
        default="settled", description="settled, base, or the folder or hub id of another model with the same tokenizer"
    )
    on: Literal["memory", "new", "both"] = Field(default="memory", description="rows that are distilled on")
    mix: ShareBelowOne = Field(
        default=0.0,
        description="share of replayed rows in the final mix; 0 draws none and shares the rows of other methods",
    )

    def __post_init__(self) -> None:
        if self.teacher in ("settled", "start") and (self.on != "memory" or self.teacher == "start"):
            raise ValueError("on new rows the model before the task is lwf's teacher; name another teacher, or use lwf")
        if self.refresh and self.teacher != "settled":
            raise ValueError(f"the teacher {self.teacher!r} does not change, so there is nothing to refresh")

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    @property
    def column(self) -> str:
        """Name of the column: a row may carry those of several teachers."""
        return "teacher" if self.teacher == "settled" else f"teacher@{self.teacher}"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The teacher's distribution, for the rows that enter memory, the new ones, or both."""
        k, of = self.top_k or WHOLE, {"memory": ("replay",), "new": ("new",), "both": ("new", "replay")}[self.on]
        return tuple(Column(self.column, rows, self.teacher, k, self.refresh) for rows in of)  # type: ignore[arg-type]

    @property
    def pool(self) -> str | None:
        """Memory; none where it acts on new rows alone."""
        return None if self.on == "new" else "replay"

    @property
    def memory_only(self) -> bool:
        """Whether it acts on rows from memory alone."""
        return self.on == "memory"

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix, which shares the rows that others draw; None for new rows alone."""
        return None if self.on == "new" else Draw(context.rows_for(self.mix))

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean divergence of the rows that have a teacher."""
        parts = {"memory": step.drawn.get(self.name), "new": step.new}
        terms = []
        for rows in (part for where, part in parts.items() if self.on in (where, "both") and part is not None):
            gap = rows.divergence(self.column, self.temperature, self.divergence)
            if gap is not None:
                terms.append(self.strength * rows.mean(gap))
        return sum(terms[1:], terms[0]) if terms else None
