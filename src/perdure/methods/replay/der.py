"""Dark experience replay: replayed rows are trained towards the logits that the model gave for them when they entered memory.

Source: Buzzega et al., "Dark Experience for General Continual Learning: a Strong, Simple Baseline", NeurIPS 2020.
"""

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Positive, ShareBelowOne, Strength
from perdure.core.seams import Column, Draw, DrawContext, Method, State
from perdure.core.step import Step
from perdure.maths.logits import logit_error
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Der(Method):
    """Add strength x mean over drawn rows of |z - h|^2, z the logits stored with the row, h the model's now.

    The squared error is a mean over the stored logits, as in the authors' code, for which the published strengths are. The
    labels of the drawn rows play no part; `der_pp` adds them.

    Seams: draw (shares the rows that others draw from the pool), loss. State: none.
    Cost: no extra forward; the shared forward is mix / (1 - mix) wider; 6 x top_k bytes a label token in memory, shared with
    `distill`, and one forward over the rows that are stored. 1.1 x naive's time (clinc5).
    When to use: old rows may be stored, and the model's outputs on them are worth more than their labels.
    Deviation: of a vocabulary the `top_k` largest logits are stored, and all others count as one, their log-sum-exp: exact only
    where top_k reaches the vocabulary less one. Logits are stored when the task settles, by the settled model, not when the
    row passes in the stream.
    """

    name: ClassVar[str] = "der"
    family: ClassVar[str] = "replay"
    seams: ClassVar[tuple[str, ...]] = ("draw", "loss")
    source: ClassVar[str] = "Buzzega et al. 2020, arXiv 2004.07211"
    column: ClassVar[str] = "teacher"

    mix: ShareBelowOne = Field(default=0.25, description="share of drawn rows in the final mix")
    strength: Strength = Field(
        default=0.03, description="factor of the squared error; the paper's alpha is .1 to .5, for far smaller logits"
    )
    top_k: Positive = Field(default=32, description="logits stored for each label token")
    balance: Literal["label", "task", "row"] = Field(default="label", description="what gets equal service")

    @property
    def active(self) -> bool:
        """It acts when rows are drawn and their error counts."""
        return self.mix > 0 and self.strength > 0

    @property
    def columns(self) -> tuple[Column, ...]:
        """The settled model's distribution, for each row that enters memory."""
        return (Column(self.column, "replay", "settled", self.top_k),)

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix."""
        return Draw(context.rows_for(self.mix), balance=self.balance)

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean squared error of the drawn rows that have stored logits."""
        rows = step.drawn.get(self.name)
        if rows is None or self.column not in rows.columns:
            return None
        stored = rows.columns[self.column]
        error = logit_error(rows.logits, stored.index, stored.logprob, stored.tail, stored.total)
        return self.strength * rows.mean(error * rows.covered[self.column])
