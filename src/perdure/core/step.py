"""The read-only input of a method in one update; all methods share the outputs of one forward."""

from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.maths.divergence import Kind, kl_to_teacher


@dataclass(frozen=True)
class TopK:
    """A teacher's distribution at each label position, stored small: its k largest log-probabilities and the mass of the rest.

    Args:
        index: Token ids (tokens, k).
        logprob: Their log-probabilities (tokens, k), in nats.
        tail: Log of the probability of all other tokens together (tokens,).
        total: Log of the partition function (tokens,): the raw logits are logprob + total.
    """

    index: Tensor
    logprob: Tensor
    tail: Tensor
    total: Tensor

    def narrowed(self, k: int) -> "TopK":
        """Return the same distribution with at most its `k` largest log-probabilities, and the mass of the others in the tail."""
        rest = torch.cat([self.logprob[:, k:], self.tail[:, None]], dim=-1)
        tail = rest.float().logsumexp(-1).to(self.tail.dtype)
        return TopK(self.index[:, :k], self.logprob[:, :k], tail, self.total) if k < self.logprob.shape[1] else self


@dataclass(frozen=True)
class Slice:
    """The part of the shared forward that belongs to one set of rows.

    Args:
        logits: (tokens, vocab) at label positions, float32.
        labels: (tokens,) the tokens to predict.
        weight: (tokens,) weight of each token; the weighted sum over the micro-batches of an update is its mean.
        hidden: (tokens, hidden) input of the model's head at these positions, in the model's dtype.
        row: (tokens,) each token's row, by its place in the pool or among the new rows.
        task: (tokens,) number of the row's task: the pool's tasks in order of appearance, from 0; all 0 for new rows.
        columns: Stored columns of these rows, aligned with `labels`; a column that a row lacks has zero `covered`.
        covered: For each column, (tokens,) 1 where the token's row has it, else 0.
    """

    logits: Tensor
    labels: Tensor
    weight: Tensor
    hidden: Tensor | None = None
    row: Tensor | None = None
    task: Tensor | None = None
    columns: Mapping[str, TopK] = field(default_factory=dict)
    covered: Mapping[str, Tensor] = field(default_factory=dict)

    def mean(self, per_token: Tensor) -> Tensor:
        """Return this micro-batch's share of the update's mean of `per_token` (tokens,)."""
        return (per_token * self.weight).sum()

    def by_row(self, per_token: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the rows (rows,), ascending, and the unweighted mean of `per_token` of each (rows,)."""
        places, row_of = self.row.unique(return_inverse=True)  # type: ignore[union-attr]  # rows of a host have places
        sums = per_token.new_zeros(len(places)).index_add(0, row_of, per_token)
        return places, sums / torch.bincount(row_of)

    def cross_entropy(self, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy with the labels, per token (tokens,), in nats."""
        return F.cross_entropy(self.logits, self.labels, reduction="none", label_smoothing=smoothing)

    def divergence(self, column: str, temperature: float, kind: Kind = "forward") -> Tensor | None:
        """Return T^2 KL(stored teacher || model) per token (tokens,), or another `kind` of divergence (see `maths`).

        It is zero where a row lacks `column`; None where all do.
        """
        if column not in self.columns:
            return None
        teacher = self.columns[column]
        kl = kl_to_teacher(self.logits, teacher.index, teacher.logprob, teacher.tail, temperature, kind)
        return kl * self.covered[column]


Runner = Callable[..., Slice]


@dataclass(frozen=True)
class Step:
    """One micro-batch of one update, or in `gradient` and `watch` the whole update.

    Args:
        index: The update, from 0.
        total: Updates of the whole task.
        params: Trainable parameters by name; read only.
        share: This micro-batch's share of the update, 1 / micro-batches.
        new: The new rows.
        drawn: For each method that drew, its rows, if they ran in the shared forward.
        parts: The sets of drawn rows that `run` and `embed` know.
        before: In `watch`, the parameters before the optimizer step, if the method declares it in `needs`.
        task_grad: In `watch`, the gradient of the task loss alone, before mask, gradient and clip; if in `needs`.
        refs: In `hold` and `watch`, the masked gradients of the reference losses, by name; if in `needs`.
        row_losses: In `watch`, for each drawn set its rows (rows,) and their losses (rows,) in nats per token; if
            in `needs`.
        runner: The host's function behind `run`.
        embedder: The host's function behind `embed`.
        ends: In `watch`, the updates after which the weights are validated: the task may end with each of them, and what a
            method would then settle on is validated.
    """

    index: int
    total: int
    params: Mapping[str, Tensor]
    share: float = 1.0
    new: Slice | None = None
    drawn: Mapping[str, Slice] = field(default_factory=dict)
    parts: Container[str] = ()
    before: Mapping[str, Tensor] = field(default_factory=dict)
    task_grad: Mapping[str, Tensor] = field(default_factory=dict)
    row_losses: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    refs: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    runner: Runner | None = None
    embedder: Callable[[str], Tensor] | None = None
    ends: Collection[int] = ()

    def once(self, term: Tensor) -> Tensor:
        """Return this micro-batch's share of a term that depends only on the weights, so that an update counts it once."""
        return term * self.share

    def run(
        self,
        part: str,
        *,
        weights: Mapping[str, Tensor] | None = None,
        embeddings: Tensor | None = None,
        grad: bool = False,
    ) -> Slice:
        """Return the outputs on `part` of another forward.

        Args:
            part: The rows: "new", or one of `parts`.
            weights: Values to use for parameters by name; the others stay. None for the current ones.
            embeddings: Input embeddings instead of the tokens', shaped as `embed` returns them.
            grad: Whether gradients flow to the parameters (or `weights`) and to `embeddings`.

        Cost: one forward over the rows of `part`, and its backward with `grad`.
        """
        if self.runner is None:
            raise RuntimeError("a step without rows cannot run")
        return self.runner(part, weights=weights, embeddings=embeddings, grad=grad)

    def embed(self, part: str) -> Tensor:
        """Return the input embeddings of `part`, (rows, width, hidden), detached."""
        if self.embedder is None:
            raise RuntimeError("a step without rows has no embeddings")
        return self.embedder(part)


def memory_reference(step: Step, method: str) -> dict[str, Tensor]:
    """Return the mean cross-entropy of the rows that a method drew as its one reference loss, "memory"; none without rows."""
    if method not in step.drawn:
        return {}
    rows = step.drawn[method]
    return {"memory": rows.mean(rows.cross_entropy())}


def row_weights(row_of: Tensor, rows: int) -> Tensor:
    """Return a weight per token such that every row counts 1 / `rows`, whatever its length.

    Args:
        row_of: (tokens,) which row each token belongs to.
        rows: Rows of the whole update, over all its micro-batches.
    """
    lengths = torch.bincount(row_of)
    return 1.0 / (lengths[row_of] * rows)
