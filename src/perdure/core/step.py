"""What a method sees of one update: read-only, with the outputs of one forward shared by everybody."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.maths.divergence import kl_to_teacher


@dataclass(frozen=True)
class TopK:
    """A teacher's distribution at each label position, kept small: its k largest log-probabilities and the mass of the rest.

    Args:
        index: Token ids (tokens, k).
        logprob: Their log-probabilities (tokens, k), in nats.
        tail: Log of the probability of all other tokens together (tokens,).
    """

    index: Tensor
    logprob: Tensor
    tail: Tensor

    def narrowed(self, k: int) -> "TopK":
        """Return the same distribution with at most its `k` largest log-probabilities kept, the others' mass in the tail."""
        rest = torch.cat([self.logprob[:, k:], self.tail[:, None]], dim=-1)
        tail = rest.float().logsumexp(-1).to(self.tail.dtype)
        return TopK(self.index[:, :k], self.logprob[:, :k], tail) if k < self.logprob.shape[1] else self


@dataclass(frozen=True)
class Slice:
    """The part of the shared forward that belongs to one set of rows.

    Args:
        logits: (tokens, vocab) at label positions, float32.
        labels: (tokens,) the tokens to predict.
        weight: (tokens,) what each token counts, so that summing over the micro-batches of an update gives its mean.
        columns: Stored columns of these rows, aligned with `labels`; a column that a row lacks has zero `covered`.
        covered: For each column, (tokens,) 1 where the token's row has it, else 0.
    """

    logits: Tensor
    labels: Tensor
    weight: Tensor
    columns: Mapping[str, TopK] = field(default_factory=dict)
    covered: Mapping[str, Tensor] = field(default_factory=dict)

    def mean(self, per_token: Tensor) -> Tensor:
        """Return this micro-batch's share of the update's mean of `per_token` (tokens,)."""
        return (per_token * self.weight).sum()

    def cross_entropy(self, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy with the labels, per token (tokens,), in nats."""
        return F.cross_entropy(self.logits, self.labels, reduction="none", label_smoothing=smoothing)

    def divergence(self, column: str, temperature: float) -> Tensor | None:
        """Return T^2 KL(stored teacher || model) per token (tokens,), zero where a row lacks `column`; None where all do."""
        if column not in self.columns:
            return None
        teacher = self.columns[column]
        kl = kl_to_teacher(self.logits, teacher.index, teacher.logprob, teacher.tail, temperature)
        return kl * self.covered[column]


@dataclass(frozen=True)
class Step:
    """One micro-batch of one update.

    Args:
        index: The update, from 0.
        total: Updates of the whole task.
        params: Trainable parameters by name; read only.
        new: The new rows.
        drawn: For each method that drew, its rows.
    """

    index: int
    total: int
    params: Mapping[str, Tensor]
    new: Slice | None = None
    drawn: Mapping[str, Slice] = field(default_factory=dict)


def row_weights(row_of: Tensor, rows: int) -> Tensor:
    """Return a weight a token so that every row counts 1 / `rows`, whatever its length.

    Args:
        row_of: (tokens,) which row each token belongs to.
        rows: Rows of the whole update, over all its micro-batches.
    """
    lengths = torch.bincount(row_of)
    return 1.0 / (lengths[row_of] * rows)
