"""Inference over rows, in eval mode and in batches of similar length: losses, distributions, outputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from perdure.core.plan import SecondMoment
from perdure.core.step import Slice, TopK
from perdure.maths.divergence import top_k, top_k_with_labels
from perdure.model.forward import Output, Reader
from perdure.model.grouping import of_like_length
from perdure.model.input_moments import InputMoments, added
from perdure.model.within_memory import in_batches

MOST = 2048  # padded tokens of one forward: few long rows run together, since their logits fill the memory


class Inference:
    """Runs a model over rows without training it.

    Args:
        model: The model.
        reader: Turns rows into batches, and batches into outputs.
        precision: Makes the context in which forwards run, such as autocast.
        on_rows: Called with the number of rows that are done, and of all rows, batch by batch.
    """

    def __init__(
        self,
        model: Any,
        reader: Reader,
        precision: Callable[[], AbstractContextManager] = nullcontext,
        on_rows: Callable[[int, int], None] | None = None,
    ):
        self.model, self.reader, self.precision, self.on_rows = model, reader, precision, on_rows

    @torch.no_grad()
    def nll(
        self, rows: Sequence[Any], batch_size: int = 32, weights: Mapping[str, Tensor] | None = None
    ) -> list[float]:
        """Return the mean negative log-likelihood per label token of each row, in nats. Cost: one forward a row."""
        result = [0.0] * len(rows)
        for indices, batch, out in self.forwards(rows, batch_size, weights):
            losses = Slice(out.logits, batch.labels.to(out.logits.device), torch.ones(())).cross_entropy().cpu()
            sums = torch.zeros(len(indices)).index_add_(0, batch.at[0], losses)
            for i, value in zip(indices, (sums / torch.bincount(batch.at[0])).tolist(), strict=True):
                result[i] = value
        return result

    @torch.no_grad()
    def top_k(self, rows: Sequence[Any], k: int, batch_size: int = 32, *, labels: bool = False) -> list[TopK]:
        """Return the model's distribution at the label positions of each row, its k largest values. Cost: one forward a row.

        Args:
            rows: The rows.
            k: Tokens a label position.
            batch_size: Rows of one forward, at most.
            labels: The label itself is the first of the k, as `Column.labels` has it.
        """
        result: dict[int, TopK] = {}
        for indices, batch, out in self.forwards(rows, batch_size):
            lengths = torch.bincount(batch.at[0]).tolist()
            found = (
                top_k_with_labels(out.logits, batch.labels.to(out.logits.device), k) if labels else top_k(out.logits, k)
            )
            parts = [part.cpu().split(lengths) for part in found]
            result |= {i: TopK(*row) for i, *row in zip(indices, *parts, strict=True)}
        return [result[i] for i in range(len(rows))]

    def forwards(
        self, rows: Sequence[Any], batch_size: int = 32, weights: Mapping[str, Tensor] | None = None
    ) -> Iterator[tuple[list[int], Any, Output]]:
        """Yield the indices, batch and outputs of the rows in eval mode, grouped by length.

        The precision context of a forward ends before its outputs are yielded, so computations with them are not rounded by it.
        Where memory runs out, batches become smaller.

        Raises:
            OutOfMemory: One row alone does not fit.
        """
        lengths = [len(row) for row in rows]

        def forward(indices: list[int]) -> tuple[Any, Output]:
            batch = self.reader.collate([rows[i] for i in indices])
            with self.precision():
                return batch, self.reader.forward(self.model, batch, weights)

        done = 0
        with self.eval_mode():
            for indices, (batch, out) in in_batches(of_like_length(lengths, batch_size, MOST), lengths, forward):
                yield indices, batch, out
                done += len(indices)
                if self.on_rows:
                    self.on_rows(done, len(rows))

    @torch.no_grad()
    def moments(
        self, rows: Sequence[Any], modules: Sequence[str], *, own: bool = True, batch_size: int = 32
    ) -> dict[str, SecondMoment]:
        """Return the second moment of the inputs of each module, by name; nothing without rows or modules.

        Args:
            rows: The rows.
            modules: Names of linear layers.
            own: Leave out the tokens with which all rows begin.
            batch_size: Largest number of rows per forward.

        Raises:
            BadSpec: A module does not read each token once.
            OutOfMemory: One row alone does not fit.
        """
        if not rows or not modules:
            return {}
        lengths, skip = [len(row) for row in rows], self.reader.template(rows) if own else 0

        def collect(indices: list[int]) -> InputMoments:
            batch = self.reader.collate([rows[i] for i in indices])
            collected = InputMoments(self.model, modules, self.reader.token_weights(batch, skip))
            with collected.collecting(), self.precision():
                self.reader.forward(self.model, batch)
            return collected.checked()

        sums: dict[str, Tensor] = {}
        owners: dict[str, str] = {}
        tokens, done = 0.0, 0
        with self.eval_mode():
            for indices, collected in in_batches(of_like_length(lengths, batch_size, MOST), lengths, collect):
                sums, owners = added(sums, collected.sums), collected.owners
                tokens += sum(weight.sum().item() for weight in collected.weights)
                done += len(indices)
                if self.on_rows:
                    self.on_rows(done, len(rows))
        means = {name: SecondMoment(value.cpu() / tokens, tokens) for name, value in sums.items()}
        return {name: means[owners[name]] for name in modules}

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Eval mode inside; the previous mode is restored."""
        was = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was)
