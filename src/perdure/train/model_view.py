"""The read-only view of the model for methods, at the begin and the end of a task: losses, outputs and per-row gradients."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from perdure.core.keyed import keyed
from perdure.core.plan import SecondMoment
from perdure.core.step import Slice, row_weights
from perdure.maths.lora_pairs import DOWN, paired, up_of
from perdure.maths.sampling import drawn_at
from perdure.model.within_memory import in_batches
from perdure.train.per_row import RowGrads, linear_layers, per_row_gradients
from perdure.train.task import OpenTask

FLOATS = 2**25  # per-row gradients of one parameter in memory at once: 128 MiB


class ModelView:
    """`core.seams.Model` for one task."""

    def __init__(self, task: OpenTask):
        self.open_task, self.params = task, task.params
        self.task, self.first = task.inputs.name, task.inputs.first
        self.slots, self.own = task.inputs.beneath, task.inputs.own
        self.columns, self.scale = task.columns, task.recipe.settings.lora_scale

    def nll(self, rows: str, weights: Mapping[str, Tensor] | None = None, size: int | None = None) -> float | None:
        """Return the mean negative log-likelihood per row in nats, under other `weights` if given; None without rows."""
        losses = self.open_task.inference.nll(self._rows(rows, size), weights=weights)
        return sum(losses) / len(losses) if losses else None

    def weight(self, module: str) -> Tensor:
        """Return the weight of the base model in a module, (out, in), or (experts, out, in), in float32, on the CPU."""
        return self.open_task.trainable.base_weight(module)

    def moments(
        self, rows: str, modules: Sequence[str], tokens: Literal["own", "all"] = "own", size: int | None = None
    ) -> dict[str, SecondMoment]:
        """Return the second moment of the inputs of each module, by name; nothing where there are no rows."""
        return self.open_task.inference.moments(self._rows(rows, size), modules, own=tokens == "own")

    @torch.no_grad()
    def slices(self, rows: str, size: int | None = None) -> Iterator[Slice]:
        """Yield the outputs at label positions, a batch of rows at a time."""
        chosen = self._rows(rows, size)
        for indices, batch, out in self.open_task.inference.forwards(chosen):
            row_of = batch.at[0].to(out.logits.device)
            labels, weight = batch.labels.to(out.logits.device), row_weights(row_of, len(chosen))
            yield Slice(out.logits, labels, weight, out.hidden, torch.tensor(indices, device=row_of.device)[row_of])

    def gradients(
        self, rows: str, size: int | None = None, of: Literal["data", "sampled", "outputs"] = "data"
    ) -> Iterator[RowGrads]:
        """Yield per-row gradients (rows, *shape) by parameter name, each computed when it is read, a batch of rows at a time.

        Where memory runs out in a forward or a backward, batches become smaller.
        """
        trainable, inputs = self.open_task.trainable, self.open_task.inputs
        chosen = sorted(self._rows(rows, size), key=len)
        batch_size = self._rows_at_once()
        batches = [
            list(range(start, min(start + batch_size, len(chosen)))) for start in range(0, len(chosen), batch_size)
        ]

        def computed(indices: list[int]) -> RowGrads:
            batch = trainable.reader.collate([chosen[i] for i in indices], share_prefix=False)

            def score() -> Tensor:
                with trainable.precision():
                    logits = trainable.reader.forward(trainable.model, batch).logits
                labels = batch.labels
                if of == "sampled":
                    draws = [keyed(inputs.seed, inputs.name, "sampled", i) for i in indices]
                    chances = [draw.random(chosen[i].targets) for draw, i in zip(draws, indices, strict=True)]
                    labels = drawn_at(logits.detach(), torch.from_numpy(np.concatenate(chances)))
                return _scores(logits, batch.at[0], None if of == "outputs" else labels)

            return per_row_gradients(trainable.model, self.params, score)

        with self.open_task.inference.eval_mode():
            done = 0
            for indices, grads in in_batches(batches, [len(row) for row in chosen], computed):
                yield grads
                done += len(indices)
                self.open_task.stages.show(done, len(chosen))

    def features(self, rows: str, layer: int | None = None, size: int | None = None) -> tuple[Tensor, list[str | None]]:
        """Return the features of the rows' own texts under the bare base (rows, d), float32, on the CPU, and the rows' labels."""
        chosen = self._rows(rows, size)
        return self.open_task.trainable.features(chosen, layer, self.open_task.stages.show)

    def product_squares(
        self, rows: str, size: int | None = None, of: Literal["data", "sampled"] = "data"
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return row and column sums of the mean over rows of the squared gradient of B A, by the name of A."""
        pairs = [(name, up_of(name)) for name in self.params if DOWN in name and paired(name, self.params)]
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        count = 0
        for grads in self.gradients(rows, size, of) if pairs else ():
            made = {down: parts for down, up in pairs if (parts := grads.product_sums(down, up)) is not None}
            count += len(next(iter(made.values()))[0]) if made else 0
            for name, (out, into) in made.items():
                known = sums.get(name, (torch.zeros_like(out[0]), torch.zeros_like(into[0])))
                sums[name] = known[0] + out.sum(0), known[1] + into.sum(0)
        return {name: (out / count, into / count) for name, (out, into) in sums.items()}

    def _rows_at_once(self) -> int:
        """Return the number of rows per backward: a training batch if every parameter belongs to a linear layer, else one."""
        if self.open_task.recipe.settings.gradient_checkpointing:
            return 1  # in eval mode every activation is stored
        if not self.params or len(linear_layers(self.open_task.model, self.params)) < len(self.params):
            return 1
        largest = max(value.numel() for value in self.params.values())
        return max(1, min(self.open_task.recipe.settings.per_device_train_batch_size, FLOATS // largest))

    def _rows(self, rows: str, size: int | None) -> Sequence[Any]:
        inputs, pools = self.open_task.inputs, self.open_task.pools
        sets = {name: pool.rows for name, pool in pools.items()} | {"new": inputs.rows, "validation": inputs.validation}
        sets["unmeasured"] = inputs.rows if inputs.unmeasured is None else inputs.unmeasured
        return sample_of(sets, rows, size, inputs.seed, inputs.name)


def sample_of(sets: Mapping[str, Sequence[Any]], rows: str, size: int | None, seed: int, task: str) -> Sequence[Any]:
    """Return `size` rows of a set in their order, keyed; all of them if None, and none where there is no such set."""
    chosen = sets.get(rows, ())
    if size is None or size >= len(chosen):
        return chosen
    order = keyed(seed, task, "measure", rows).permutation(len(chosen))
    return [chosen[i] for i in sorted(order[:size].tolist())]


def _scores(logits: Tensor, row_of: Tensor, labels: Tensor | None) -> Tensor:
    """Return the score (rows,) of each row: the log-likelihood of its `labels`, or the squared norm of its centred logits."""
    row_of = row_of.to(logits.device)
    if labels is None:
        per_token = (logits - logits.mean(-1, keepdim=True)).square().sum(-1)
    else:
        per_token = logits.log_softmax(-1).gather(-1, labels.to(logits.device)[:, None])[:, 0]
    return per_token.new_zeros(int(row_of.max()) + 1).index_add(0, row_of, per_token)
