"""Token reweighting: label tokens that a model finds unlikely count less, since they move it furthest from what it knew.

Source: Wu et al. (DFT), 2025; Diao et al. (EAFT), 2026; Wu et al. (STM), NeurIPS 2025; Sanyal et al. (FLOW), ICML 2025.
"""

import math
import statistics
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.errors import BadSpec
from perdure.core.fields import AboveZero, Share
from perdure.core.seams import Column, Method, Model, State
from perdure.core.step import Step, TopK
from perdure.maths.token_weights import of_entropy, of_probability
from perdure.methods.registry import register

COLUMN = "teacher@base"  # shared with distill, so that the base model runs once


@register
@dataclass(frozen=True)
class TokenWeight(Method):
    """Multiply the loss of each label token of the new rows by 1 + strength x (w - 1), with the w of a scheme.

    - `dft`: w = p(label), the probability that the model in training gives the label.
    - `eaft`: w = H / 3, H the entropy of the 20 largest logits of the model in training, in nats: between 0 and 1.
    - `stm`: w = 1 where the base model's perplexity of the label, 1 / p(label), is at most `threshold`, else 0.
    - `flow`: w = exp(-f / t), f the base model's mean loss per label token of the row, t the median f of the task's rows.

    The factors have no gradient. The loss is still divided by the number of label tokens, so that a smaller mean factor (`weight`
    in the heartbeat) is a smaller task loss beside the terms of other methods, whose rows are not reweighted. No scheme looks at
    older tasks: `dft` and `eaft` follow the model that learned them, `stm` and `flow` the base model.

    Seams: prepare, weight. State: `temperature` (flow). Cost: dft and eaft no forward; stm and flow one forward of the base
    model a new row before the first update, and 24 bytes a label token while the task is learned.
    When to use: long answers, parts of which the base model already predicts (reasoning, code, instructions), and no row to
    replay. Not for labels of a token or two that the base model does not know: there the factors are near 0 and little is
    learned.
    Deviation: `strength` blends with plain training (1 is the papers'). EAFT: over 3, as LLaMA-Factory, ms-swift and Liger have
    it, where the paper has ln 20; the first version in Axolotl divides by nothing, and is three times as strong. STM: the mean
    is over all label tokens, not over those that remain. FLOW: f is a mean over label tokens, as in the authors' code.
    """

    name: ClassVar[str] = "token_weight"
    family: ClassVar[str] = "token weights"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "weight")
    source: ClassVar[str] = (
        "Wu et al. 2025, arXiv 2508.05629; Diao et al. 2026, arXiv 2601.02151; Wu et al. 2025, arXiv 2501.14315; "
        "Sanyal et al. 2025, arXiv 2502.02797"
    )

    scheme: Literal["dft", "eaft", "stm", "flow"] = Field(default="dft", description="whose factors")
    strength: Share = Field(default=1.0, description="share of the scheme; 0 is plain training")
    exponent: AboveZero = Field(default=1.0, description="eaft: power of the entropy, eaft_alpha elsewhere")
    threshold: AboveZero = Field(default=2.5, description="stm: largest perplexity of a token that counts")

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    @property
    def columns(self) -> tuple[Column, ...]:
        """The base model's probability of the labels, where the scheme reads it."""
        return (Column(COLUMN, "new", "base", 1, labels=True),) if self.scheme in ("stm", "flow") else ()

    def prepare(self, model: Model, state: State) -> State:
        """Return the median loss of the rows under the base model (flow).

        Raises:
            BadSpec: The base model finds every label token too unlikely (stm), so that nothing would be learned.
        """
        if not self.columns:
            return {}
        losses = [_losses(row) for row in model.columns[COLUMN]]
        if self.scheme == "flow":
            return {"temperature": torch.tensor(statistics.median(row.mean().item() for row in losses))}
        least = math.exp(min(row.min().item() for row in losses))
        if least > self.threshold:
            raise BadSpec(
                f"token_weight with scheme stm: the base model's perplexity of every label token is above {self.threshold:g}, so "
                f"that nothing would be learned; raise threshold (the least is {least:.3g}), or take "
                "another scheme"
            )
        return {}

    def weight(self, step: Step, state: State) -> Tensor | None:
        """Return the factor of each label token of the new rows."""
        new = step.new
        if new is None:
            return None
        if self.scheme == "dft":
            factors = of_probability(new.logits, new.labels)
        elif self.scheme == "eaft":
            factors = of_entropy(new.logits) ** self.exponent
        elif self.scheme == "stm":
            factors = (_losses(new.columns[COLUMN]).exp() <= self.threshold).to(new.weight.dtype)
        else:
            _, row_of = new.row.unique(return_inverse=True)  # type: ignore[union-attr]  # rows of a host have places
            means = new.by_row(_losses(new.columns[COLUMN]))[1]
            factors = torch.exp(-means / state["temperature"].clamp(min=1e-6))[row_of]
        return 1 + self.strength * (factors - 1)


def _losses(column: TopK) -> Tensor:
    """Return the teacher's loss of each label (tokens,): the label is the first token of the column."""
    return -column.logprob[:, 0]
