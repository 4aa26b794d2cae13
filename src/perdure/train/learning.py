"""One learn in progress: what a recipe does in each update, shared by every host.

A host calls, for each update: `open` (rows are drawn), `loss` for each micro-batch (backward is the host's), then, after
its optimizer step, `close`. When all updates are done it calls `settle`. Nothing here knows which host runs it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from perdure.core.errors import Diverged
from perdure.core.keyed import seed_of
from perdure.core.recipe import Recipe
from perdure.core.seams import Draw, DrawContext, State
from perdure.core.step import Slice, Step, TopK, row_weights
from perdure.data.encode import Encoded
from perdure.maths.divergence import top_k
from perdure.memory.pool import Pool
from perdure.train.batch import Batch, collate, plan_epoch
from perdure.train.forward import label_logits


@dataclass(frozen=True)
class Micro:
    """One micro-batch: which new rows, which rows of each pool, and the totals of its update."""

    update: int
    new: Sequence[int]
    drawn: Mapping[str, Sequence[int]]
    new_tokens: int
    drawn_rows: Mapping[str, int]


@dataclass
class Record:
    """What is told of a learn: the loss over time, what each method did, and how many tokens were computed."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    heartbeats: dict[str, list[tuple[int, dict[str, float]]]] = field(default_factory=dict)
    tokens: int = 0


class Learning:
    """The updates of one task under one recipe.

    Args:
        model: A causal language model; only `params` are trained.
        params: Trainable parameters by name.
        recipe: Settings and methods.
        rows: The new rows as tokens.
        pools: Memory by pool name.
        validation: Rows for `keep: best`; may be empty.
        seed: Seed of everything that is random here.
        task: Name of the task; part of every key.
        pad: Token id used for padding.
        precision: Makes the context in which forwards run, such as autocast.
    """

    def __init__(
        self,
        model: Any,
        params: Mapping[str, Tensor],
        recipe: Recipe,
        rows: Sequence[Encoded],
        *,
        pools: Mapping[str, Pool] | None = None,
        validation: Sequence[Encoded] = (),
        seed: int = 0,
        task: str = "",
        pad: int = 0,
        precision: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.model, self.params, self.recipe, self.rows = model, dict(params), recipe, rows
        self.pools = {name: pool for name, pool in (pools or {}).items() if pool.keys}
        self.validation, self.seed, self.task, self.pad, self.precision = validation, seed, task, pad, precision
        self.state: dict[str, State] = {method.name: {} for method in recipe.methods}
        self.record = Record()
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.drawers: dict[str, str] = {}  # of the open update: which method draws from which pool
        self.drawn_rows: dict[str, int] = {}  # of the open update: rows served by each pool
        self.noted: dict[str, tuple[float, float]] = {}  # of the open update: each term, its squared pull on the logits
        settings = recipe.settings
        batches = [
            plan_epoch([len(row) for row in rows], settings.per_device_train_batch_size, seed, task, epoch)
            for epoch in range(settings.num_train_epochs)
        ]
        group = settings.gradient_accumulation_steps
        self.updates = [epoch[i : i + group] for epoch in batches for i in range(0, len(epoch), group)]
        self.epoch_ends = {len(batches[0][::group]) * (e + 1) - 1 for e in range(len(batches))}

    @property
    def total(self) -> int:
        """Updates of the whole task."""
        return len(self.updates)

    def open(self, update: int) -> list[Micro]:
        """Draw what the methods wish for this update and spread it over its micro-batches."""
        torch.manual_seed(seed_of(self.seed, self.task, "dropout", update))
        self.noted = {}
        batches = self.updates[update]
        new_rows = sum(len(batch) for batch in batches)
        wishes = self._wishes(
            DrawContext(update, self.total, new_rows, {k: len(p.keys) for k, p in self.pools.items()})
        )
        longest = max(len(self.rows[i]) for batch in batches for i in batch)
        drawn = {
            pool: self.pools[pool].draw(wish, longest, self.seed, self.task, pool, update)
            for pool, wish in wishes.items()
        }
        self.drawn_rows = {pool: len(rows) for pool, rows in drawn.items()}
        parts = len(batches)
        return [
            Micro(
                update,
                batch,
                {pool: rows[i::parts] for pool, rows in drawn.items()},
                sum(self.rows[j].targets for other in batches for j in other),
                self.drawn_rows,
            )
            for i, batch in enumerate(batches)
        ]

    def loss(self, micro: Micro) -> Tensor:
        """Return the loss of one micro-batch; the losses of an update's micro-batches sum to the update's.

        Raises:
            Diverged: A term is not finite; the message names the method and the update.
        """
        drawn = [(pool, i) for pool, rows in sorted(micro.drawn.items()) for i in rows]
        encoded = [self.rows[i] for i in micro.new] + [self.pools[pool].rows[i] for pool, i in drawn]
        batch = collate(encoded, self.pad)
        with self.precision():
            logits = label_logits(self.model, batch)
        self.record.tokens += sum(len(row) for row in encoded)
        new, slices = self._slices(micro, batch, logits, drawn)
        step = Step(micro.update, self.total, self.params, new, slices)
        terms = {"task": new.mean(new.cross_entropy(self.recipe.settings.label_smoothing_factor))}
        for method in self.recipe.owners("loss"):
            if (term := method.loss(step, self.state[method.name])) is not None:
                terms[method.name] = term
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            self._blame(terms, micro.update)
        if micro.update % self.recipe.settings.logging_steps == 0 or micro.update == self.total - 1:
            self._note(terms, logits)
        return loss

    def close(self, update: int) -> None:
        """Let watchers see the weights after the optimizer step; at an epoch's end, score the validation rows."""
        self._beat(update)
        step = Step(update, self.total, self.params)
        with torch.no_grad():
            for method in self.recipe.owners("watch"):
                self.state[method.name] = method.watch(step, self.state[method.name])
        if self.recipe.settings.keep == "best" and self.validation and update in self.epoch_ends:
            loss = sum(self.nll(self.validation)) / len(self.validation)
            if self.best is None or loss < self.best[0]:
                self.best = (loss, {name: value.detach().clone() for name, value in self.params.items()})

    def settle(self) -> None:
        """Write the final weights of the task: the best on validation rows if asked for, then the settling method's."""
        values = self.best[1] if self.best else {}
        if method := self.recipe.owner("settle"):
            settled, self.state[method.name] = method.settle(self.params, self.state[method.name])
            self._beat_settle(method.name, settled)
            values = values or settled
        with torch.no_grad():
            for name, value in values.items():
                self.params[name].copy_(value)

    @torch.no_grad()
    def nll(self, rows: Sequence[Encoded], batch_size: int = 32) -> list[float]:
        """Return the mean negative log-likelihood per label token of each row, in nats. Cost: one forward a row."""
        result = [0.0] * len(rows)
        for indices, batch, logits in self._forwards(rows, batch_size):
            losses = Slice(logits, batch.labels.to(logits.device), torch.ones(())).cross_entropy().cpu()
            sums = torch.zeros(len(indices)).index_add_(0, batch.at[0], losses)
            for i, value in zip(indices, (sums / torch.bincount(batch.at[0])).tolist(), strict=True):
                result[i] = value
        return result

    @torch.no_grad()
    def top_k(self, rows: Sequence[Encoded], k: int, batch_size: int = 32) -> list[TopK]:
        """Return the model's distribution at the label positions of each row, kept to k. Cost: one forward a row."""
        result: dict[int, TopK] = {}
        for indices, batch, logits in self._forwards(rows, batch_size):
            lengths = torch.bincount(batch.at[0]).tolist()
            parts = [part.cpu().split(lengths) for part in top_k(logits, k)]
            result |= {i: TopK(*row) for i, *row in zip(indices, *parts, strict=True)}
        return [result[i] for i in range(len(rows))]

    def _forwards(self, rows: Sequence[Encoded], batch_size: int) -> Any:
        was_training = self.model.training
        self.model.eval()
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = collate([rows[i] for i in indices], self.pad)
            with self.precision():
                yield indices, batch, label_logits(self.model, batch)
        self.model.train(was_training)

    def _wishes(self, context: DrawContext) -> dict[str, Draw]:
        """Merge the methods' wishes by pool: the largest size, the columns of all."""
        self.drawers = {}
        wishes: dict[str, Draw] = {}
        for method in self.recipe.owners("draw"):
            wish = method.draw(context, self.state[method.name])
            if wish is None or wish.pool not in self.pools:
                continue
            self.drawers[method.name] = wish.pool
            known = wishes.get(wish.pool)
            if known is None or wish.size > known.size:
                wishes[wish.pool] = Draw(wish.size, wish.pool, (), wish.balance)
        return {pool: wish for pool, wish in wishes.items() if wish.size}

    def _slices(
        self, micro: Micro, batch: Batch, logits: Tensor, drawn: list[tuple[str, int]]
    ) -> tuple[Slice, dict[str, Slice]]:
        """Cut the shared forward into the new rows' part and each pool's, in the order the rows were collated."""
        row_of = batch.at[0]
        labels = batch.labels.to(logits.device)
        fresh = row_of < len(micro.new)
        new = Slice(
            logits[fresh], labels[fresh], torch.full_like(labels[fresh], 1 / micro.new_tokens, dtype=torch.float32)
        )
        by_pool: dict[str, Slice] = {}
        for pool in {pool for pool, _ in drawn}:
            places = [n for n, (other, _) in enumerate(drawn) if other == pool]
            first, last = places[0] + len(micro.new), places[-1] + len(micro.new)
            mine = (row_of >= first) & (row_of <= last)
            weight = row_weights(row_of[mine] - first, micro.drawn_rows[pool]).to(logits.device)
            columns, covered = self._columns(pool, [drawn[n][1] for n in places], logits.device)
            by_pool[pool] = Slice(logits[mine], labels[mine], weight, columns, covered)
        return new, {name: by_pool[pool] for name, pool in self.drawers.items() if pool in by_pool}

    def _columns(
        self, pool: str, indices: list[int], device: torch.device
    ) -> tuple[dict[str, TopK], dict[str, Tensor]]:
        """Align the stored columns of the rows with their label tokens; rows without one are filled and not covered."""
        source = self.pools[pool]
        columns, covered = {}, {}
        for name in source.columns:
            stored = [source.column(name, i) for i in indices]
            width = min((top.index.shape[1] for top in stored if top is not None), default=0)
            if not width:
                continue
            filled = [
                top.narrowed(width) if top is not None else _empty(source.rows[i].targets, width)
                for i, top in zip(indices, stored, strict=True)
            ]
            parts = [
                torch.cat([getattr(top, part) for top in filled]).to(device) for part in ("index", "logprob", "tail")
            ]
            columns[name] = TopK(*parts)
            flags = [
                torch.full((source.rows[i].targets,), float(top is not None))
                for i, top in zip(indices, stored, strict=True)
            ]
            covered[name] = torch.cat(flags).to(device)
        return columns, covered

    def _blame(self, terms: dict[str, Tensor], update: int) -> None:
        name, term = next((n, t) for n, t in terms.items() if not torch.isfinite(t))
        what = "the task loss" if name == "task" else f"method {name}"
        raise Diverged(
            f"{what} gave {term.item()} at update {update} of {self.total}; lower the learning rate or its strength"
        )

    def _note(self, terms: dict[str, Tensor], logits: Tensor) -> None:
        """Add a micro-batch's terms, and the squares of their gradients on the logits, to the open update's."""
        for name, term in terms.items():
            grad = None
            if term.requires_grad:
                grad = torch.autograd.grad(term, logits, retain_graph=True, allow_unused=True)[0]
            loss, square = self.noted.get(name, (0.0, 0.0))
            self.noted[name] = (loss + term.item(), square + (0.0 if grad is None else grad.square().sum().item()))

    def _beat(self, update: int) -> None:
        """Record the loss, and for each method its term and the size of its pull on the logits relative to the task's."""
        if not self.noted:
            return
        self.record.loss.append((update, self.noted["task"][0]))
        task = max(self.noted["task"][1] ** 0.5, 1e-12)
        for name, (loss, square) in self.noted.items():
            if name != "task":
                beat = {"loss": loss, "pull": square**0.5 / task}
                if pool := self.drawers.get(name):
                    beat["rows"] = float(self.drawn_rows[pool])
                self.record.heartbeats.setdefault(name, []).append((update, beat))

    def _beat_settle(self, name: str, settled: dict[str, Tensor]) -> None:
        moved = (
            sum((settled[k].float() - self.params[k].detach().float()).square().sum().item() for k in settled) ** 0.5
        )
        self.record.heartbeats.setdefault(name, []).append((self.total, {"moved": moved}))


def _empty(tokens: int, width: int) -> TopK:
    """A placeholder for a row without the column: finite, and multiplied by zero."""
    return TopK(torch.arange(width).repeat(tokens, 1), torch.full((tokens, width), -10.0), torch.zeros(tokens))
