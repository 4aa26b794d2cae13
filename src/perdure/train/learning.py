"""One learn in progress: what a recipe does in each update, shared by every host.

A host calls `begin` once, then for each update: `open` (rows are drawn), `accumulate` for each micro-batch (forward and
backward), `turn` (mask and gradient; clipping is the host's), then, after its optimizer step, `close`. When all updates are
done it calls `settle`. Nothing here knows which host runs it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from perdure.core.clock import Clock
from perdure.core.errors import BadSpec, Diverged
from perdure.core.keyed import seed_of
from perdure.core.recipe import Recipe
from perdure.core.seams import DrawContext, Grads, State
from perdure.core.step import Step, TopK
from perdure.memory.pool import Pool
from perdure.model.forward import Reader, Tokens
from perdure.model.grouping import plan_epoch
from perdure.model.probing import batching_of
from perdure.train.asked import Asked
from perdure.train.between import Between
from perdure.train.draws import Drawn, Micro, draw_rows, fitted, forwards_of
from perdure.train.gauge import Gauge, Record, norm, turned
from perdure.train.grads import Backward, added, apart, grad_of
from perdure.train.stepping import parts_of, run, step_of

SPREAD = 1.75  # average batches of new rows that one forward may hold: larger ones are few, and cutting them bounds the memory


class Learning(Asked):
    """The updates of one task under one recipe.

    Args:
        model: The model; only `params` are trained.
        params: Trainable parameters by name.
        recipe: Settings and methods.
        rows: The new rows, as the reader takes them.
        pools: Memory by pool name.
        validation: Rows held out of training; may be empty.
        state: What each method's `measure` left after the last task.
        columns: What other models say of the new rows, by column name; those of the model itself are written in `begin`.
        seed: Seed of everything that is random here.
        task: Name of the task; part of every key.
        first: Whether no task was learned before; methods then have nothing to protect.
        pad: Token id used for padding.
        reader: Turns rows into outputs; token rows of a causal language model unless given.
        precision: Makes the context in which forwards run, such as autocast.
        clock: Counts the seconds of the learn; a new one unless given.

    Raises:
        BadSpec: A method's state belongs to parameters of other shapes.
    """

    def __init__(
        self,
        model: Any,
        params: Mapping[str, Tensor],
        recipe: Recipe,
        rows: Sequence[Any],
        *,
        pools: Mapping[str, Pool] | None = None,
        validation: Sequence[Any] = (),
        state: Mapping[str, State] | None = None,
        columns: Mapping[str, Sequence[TopK]] | None = None,
        seed: int = 0,
        task: str = "",
        first: bool = False,
        pad: int = 0,
        reader: Reader | None = None,
        precision: Callable[[], AbstractContextManager] = nullcontext,
        clock: Clock | None = None,
    ):
        super().__init__(model, reader or Tokens(pad, batching_of(model).prefix), precision)
        self.params, self.recipe, self.rows = dict(params), recipe, rows
        self.pools = {name: pool for name, pool in (pools or {}).items() if pool.keys}
        self.validation, self.seed, self.task, self.first = validation, seed, task, first
        self.state: dict[str, State] = {m.name: dict((state or {}).get(m.name, {})) for m in recipe.methods}
        self._check_state()
        self.columns: dict[str, Sequence[TopK]] = dict(columns or {})
        self.unused: dict[str, str] = {}  # methods whose work was left out at the end, and why
        self.record, self.clock, self.closed = Record(), clock or Clock(), False
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.drawn = Drawn({}, {})  # what follows is of the open update
        self.gauge: Gauge | None = None
        self.before: dict[str, Tensor] = {}
        self.task_grad: Grads = {}
        self.refs: dict[str, Grads] = {}
        self.losses: dict[str, list[tuple[Tensor, Tensor]]] = {}
        settings = recipe.settings
        batches = [
            plan_epoch([len(row) for row in rows], settings.per_device_train_batch_size, seed, task, epoch)
            for epoch in range(settings.num_train_epochs)
        ]
        sizes = [len(batch) * max(len(rows[i]) for i in batch) for epoch in batches for batch in epoch]
        self.room = max(*sizes, SPREAD * sum(sizes) / len(sizes)) if sizes else 0.0
        group = settings.gradient_accumulation_steps
        self.updates = [epoch[i : i + group] for epoch in batches for i in range(0, len(epoch), group)]
        self.epoch_ends = {len(batches[0][::group]) * (e + 1) - 1 for e in range(len(batches))}

    @property
    def total(self) -> int:
        """Updates of the whole task."""
        return len(self.updates)

    @property
    def kept(self) -> dict[str, State]:
        """What `measure` left of each method that has it, for the next task."""
        return {method.name: self.state[method.name] for method in self.recipe.owners("measure")}

    def begin(self) -> None:
        """Write the columns of new rows that the model itself says, and prepare every method. Call once, before resuming."""
        for value in self.params.values():
            value.grad = None
        for column in self.recipe.columns("new"):
            if column.teacher == "start":
                self.columns |= {} if self.first else {column.name: self.top_k(self.rows, column.top_k)}
            elif column.name not in self.columns:
                raise BadSpec(
                    f"column {column.name!r} is to be said by {column.teacher!r}, and this host did not ask it"
                )
        with self.still():
            for method in self.recipe.owners("prepare"):
                self.state[method.name] = method.prepare(Between(self), self.state[method.name])
                self._all_finite(self.state[method.name], f"method {method.name} prepared state that is", 0)

    def open(self, update: int) -> list[Micro]:
        """Draw what the methods wish for this update and spread it over its micro-batches."""
        torch.manual_seed(seed_of(self.seed, self.task, "dropout", update))
        settings, batches = self.recipe.settings, self.updates[update]
        told = update % settings.logging_steps == 0 or update == self.total - 1
        self.gauge = Gauge() if told else None
        self.task_grad, self.refs, self.losses = {}, {}, {}
        if self.recipe.needs("before"):
            self.before = {name: value.detach().clone() for name, value in self.params.items()}
        sizes = {name: len(pool.keys) for name, pool in self.pools.items()}
        context = DrawContext(update, self.total, sum(map(len, batches)), sizes)
        longest = max(len(self.rows[i]) for batch in batches for i in batch)
        self.drawn = draw_rows(self.recipe, self.pools, self.state, context, longest, self.seed, self.task)
        self.record.fed |= {part.split(".")[0] for part, draw in self.drawn.reads.items() if draw in self.drawn.rows}
        whole, parts = self._whole(update, batches), len(batches)
        micros = [
            replace(
                whole,
                new=batch,
                drawn={draw: rows[i::parts] for draw, rows in self.drawn.rows.items()},
                share=1 / parts,
            )
            for i, batch in enumerate(batches)
        ]
        return [part for micro in micros for part in self._fitted(micro)]

    def accumulate(self, micro: Micro, backward: Backward = Tensor.backward) -> float:
        """Run one micro-batch forward and backward; return its share of the update's loss.

        The gradients of an update's micro-batches sum to the update's.

        Args:
            micro: One of what `open` returned.
            backward: The host's backward.

        Raises:
            Diverged: A term is not finite; the message names the method and the update.
        """
        step, logits = step_of(self, micro)
        terms = {"task": step.new.mean(step.new.cross_entropy(self.recipe.settings.label_smoothing_factor))}  # type: ignore[union-attr]
        for method in self.recipe.owners("loss"):
            if (term := method.loss(step, self.state[method.name])) is not None:
                terms[method.name] = term
        references: dict[str, Tensor] = {}
        if method := self.recipe.owner("reference"):
            references = method.reference(step, self.state[method.name])
        amounts = self._finite(terms, micro.update)
        self._finite(references, micro.update, method.name if method else None)
        self.record.acted |= {name for name, value in amounts.items() if value and terms[name].requires_grad} - {"task"}
        if self.gauge:
            self.gauge.note(terms, logits, self.params)
        self._note_rows(step)
        loss = torch.stack(list(terms.values())).sum()
        for name, reference in sorted(references.items()):
            self.refs[name] = added(self.refs.get(name), apart(reference, self.params, backward))
        if self.recipe.needs("task_grad"):
            rest = [term for name, term in terms.items() if name != "task" and term.requires_grad]
            own = apart(terms["task"], self.params, backward)
            self.task_grad = added(self.task_grad or None, own)
            for name, value in self.params.items():
                value.grad = grad_of(value) + own[name]
            if rest:
                backward(torch.stack(rest).sum())
        else:
            backward(loss)
        return sum(amounts.values())

    def turn(self, update: int) -> None:
        """Mask the gradients of the update and let the gradient's owner turn them. Call before clipping.

        Raises:
            Diverged: The masked or turned gradient is not finite.
        """
        masks, owner = self.recipe.owners("mask"), self.recipe.owner("gradient")
        if not masks and not owner:
            self._beat(update, {})
            return
        grads = {name: grad_of(value) for name, value in self.params.items()}
        self._beat(update, grads)
        for method in masks:
            masked = method.mask(grads, self.state[method.name])
            self._all_finite(masked, f"method {method.name} gave a masked gradient that is", update)
            self.refs = {name: method.mask(ref, self.state[method.name]) for name, ref in self.refs.items()}
            if self.gauge:
                share = 1 - (norm(masked) / max(norm(grads), 1e-30)) ** 2
                self.record.beat(update, method.name, {"masked": share})
            grads = masked
        if owner:
            step = Step(update, self.total, self.params)
            made = owner.gradient(grads, self.refs, step, self.state[owner.name])
            if any(made[name] is not grads[name] for name in grads):
                self.record.acted.add(owner.name)
            self._all_finite(made, f"method {owner.name} gave a gradient that is", update)
            if self.gauge:
                self.record.beat(update, owner.name, {"turned": turned(grads, made), **self._served(owner.name)})
            grads = made
        for name, value in self.params.items():
            value.grad = grads[name].to(value.dtype)

    def close(self, update: int) -> None:
        """Let watchers see the weights after the optimizer step; at an epoch's end, score the validation rows."""
        losses = {part: tuple(map(torch.cat, zip(*found, strict=True))) for part, found in self.losses.items()}
        whole = self._whole(update, self.updates[update])
        step = Step(
            update,
            self.total,
            self.params,
            parts=parts_of(self, whole),
            before=self.before,
            task_grad=self.task_grad,
            row_losses=losses,  # type: ignore[arg-type]
            runner=partial(run, self, whole),
        )
        with torch.no_grad():
            for method in self.recipe.owners("watch"):
                self.state[method.name] = method.watch(step, self.state[method.name])
        if self.recipe.settings.keep == "best" and self.validation and self._ends_epoch(update):
            loss = sum(self.nll(self.validation)) / len(self.validation)
            if self.best is None or loss < self.best[0]:
                self.best = (loss, {name: value.detach().clone() for name, value in self.params.items()})

    def settle(self) -> None:
        """Write the final weights, and measure.

        They are the last ones, or what a method settles on. With `keep: best` they are the best on validation rows: of the
        weights after each epoch, and of what a method settles on.

        Called again, as by a host that resumes after the end, it does nothing.

        Raises:
            Diverged: The weights, or what a method measured, are not finite; the message names who gave them.
        """
        if self.closed:
            return
        self._all_finite(self.params, "the last update gave weights that are", self.total)
        values: Mapping[str, Tensor] = self.best[1] if self.best else {}
        with self.still():
            if method := self.recipe.owner("settle"):
                settled, self.state[method.name] = method.settle(Between(self), self.state[method.name])
                self._all_finite(settled, f"method {method.name} settled on weights that are", self.total)
                values = self._better(settled, method.name)
                gap = {name: value.float() - self.params[name].detach().float() for name, value in settled.items()}
                self.record.beat(self.total, method.name, {"moved": norm(gap)})
            with torch.no_grad():
                for name, value in values.items():
                    self.params[name].copy_(value)
            for method in self.recipe.owners("measure"):
                self.state[method.name] = method.measure(Between(self), self.state[method.name])
                self._all_finite(self.state[method.name], f"method {method.name} measured state that is", self.total)
        self.closed = True

    def _better(self, settled: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
        """Return the better of what a method settled on and of the best epoch, by their loss on validation rows."""
        if self.best is None:
            return settled
        loss = sum(self.nll(self.validation, weights=settled)) / len(self.validation)
        if loss <= self.best[0]:
            return settled
        self.unused[name] = (
            f"keep: best took the weights after an epoch, whose loss on the validation rows is {self.best[0]:.4g}; what {name} "
            f"settled on has {loss:.4g}"
        )
        return self.best[1]

    def _fitted(self, micro: Micro) -> list[Micro]:
        """Return the micro-batch, cut where its forwards would hold too much."""
        forwards = forwards_of(micro, self.rows, self.pools, self.reader.padded_tokens)
        return fitted(micro, self.rows, self.pools, forwards, self.room)

    def _ends_epoch(self, update: int) -> bool:
        """Say whether an epoch ends with the update, or the task does (a host may end it early)."""
        return update in self.epoch_ends or update == self.total - 1

    def _whole(self, update: int, batches: Sequence[Sequence[int]]) -> Micro:
        """Return the open update as one micro-batch."""
        new = [i for batch in batches for i in batch]
        tokens = sum(self.rows[i].targets for i in new)
        return Micro(update, new, self.drawn.rows, tokens, self.drawn.sizes)

    def _note_rows(self, step: Step) -> None:
        """Keep the loss of each drawn row for watchers that asked for it."""
        for name in self.recipe.needs("row_losses"):
            for part, drawn in step.drawn.items():
                if part.split(".")[0] == name and drawn.row is not None:
                    self.losses.setdefault(part, []).append(drawn.by_row(drawn.cross_entropy().detach()))

    def _beat(self, update: int, grads: Grads) -> None:
        """Record the loss and what each method's term did, if this update is told."""
        if not self.gauge:
            return
        self.record.loss.append((update, self.gauge.terms["task"]))
        size = norm(grads or {n: grad_of(v) for n, v in self.params.items()}) if self.gauge.vectors else 0.0
        for name, beat in self.gauge.pulls(size).items():
            self.record.beat(update, name, {**beat, **self._served(name)})

    def _served(self, name: str) -> dict[str, float]:
        draws = {draw for part, draw in self.drawn.reads.items() if part.split(".")[0] == name}
        return {"rows": float(sum(self.drawn.sizes.get(draw, 0) for draw in draws))} if draws else {}

    def _finite(self, terms: Mapping[str, Tensor], update: int, owner: str | None = None) -> dict[str, float]:
        """Return the terms as numbers; one that is not finite is an error which names its method."""
        amounts = torch.stack([term.detach().float() for term in terms.values()]).tolist() if terms else []
        for name, value in zip(terms, amounts, strict=True):
            if not math.isfinite(value):
                what = "the task loss" if name == "task" else f"method {owner or name}"
                raise Diverged(
                    f"{what} gave {value} at update {update} of {self.total}; lower the learning rate or its strength"
                )
        return dict(zip(terms, amounts, strict=True))

    def _all_finite(self, values: Mapping[str, Tensor], what: str, update: int) -> None:
        """Raise Diverged unless all values are finite; `what` says who gave what."""
        if not all(torch.isfinite(value).all() for value in values.values()):
            raise Diverged(f"{what} not finite at update {update} of {self.total}; lower the learning rate")

    def _check_state(self) -> None:
        for method, state in self.state.items():
            tied = [key for key in state if "." in key and key.partition(".")[0].isidentifier()]  # <what>.<parameter>
            if tied and not any(key.partition(".")[2] in self.params for key in tied):
                raise BadSpec(
                    f"method {method} kept {tied[0]} and {len(tied) - 1} more, but no parameter of theirs is trained now; "
                    "train what was trained before, drop the method, or start: base"
                )
            for key, value in state.items():
                name = key.partition(".")[2]
                shape = self.params[name].shape if name in self.params else torch.Size()
                if value.shape[value.dim() - len(shape) :] != shape:  # several of a parameter's shape may be stacked
                    raise BadSpec(
                        f"method {method} kept {key} of shape {tuple(value.shape)}, but the parameter has "
                        f"{tuple(shape)} now; keep the adapter's rank, or start: base"
                    )
