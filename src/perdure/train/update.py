"""One update of a task: draws, forwards and backwards, and the methods' changes to the gradient and to the new weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from perdure.core.errors import Conflict, Diverged, OutOfMemory
from perdure.core.keyed import seed_of
from perdure.core.seams import DrawContext, Grads
from perdure.core.step import Step
from perdure.ledger.records import Heartbeat, RowsRun
from perdure.model.within_memory import attempt
from perdure.train.draws import MicroBatch, draw_rows, rows_in
from perdure.train.effects import EffectMeter, norm, turned
from perdure.train.grads import Backward, added, grad_of, gradients_of
from perdure.train.reweighting import reweighted
from perdure.train.splitting import fitted, forwards_of, size_of
from perdure.train.steps import parts_of, run, step_of
from perdure.train.task import OpenTask, check_finite, contiguous

ADVICE = (
    "set gradient_checkpointing: true, lower max_length, make a workspace whose base takes less (init --quantization nf4), or "
    "give more memory: end other programs that use it, or choose another --device"
)


class Update:
    """One update, from the rows that it draws to the seam `watch` on the new weights.

    A host calls `gradients`, clips, steps its optimizer, and calls `finish`; any other order is refused.

    Args:
        task: The task that is learned.
        index: The update, from 0.
        total: Updates of the whole task.
        batches: New rows of each micro-batch.
        room: Padded tokens that one forward may have.
        closing: Called when the update is finished.

    Attributes:
        drawn: The rows that methods drew from memory.
        micro_batches: The micro-batches, which run one after the other.
        before: Parameters before the optimizer step, where a method needs them.
        task_gradient: Gradient of the task loss alone, where a method needs it.
        references: Gradients of the reference losses, by name.
        room: Padded tokens that one forward may have; less than the host gave where memory ran out.
        finished: Whether `finish` was called.
    """

    def __init__(
        self,
        task: OpenTask,
        index: int,
        total: int,
        batches: Sequence[Sequence[int]],
        room: float,
        closing: Callable[[], None],
    ):
        self.task, self.index, self.total, self.closing = task, index, total, closing
        self.batches, self.room = batches, room
        self.recipe, self.params, self.record = task.recipe, task.params, task.record
        self.meter = EffectMeter() if index % self.recipe.settings.logging_steps == 0 or index == total - 1 else None
        self.before: dict[str, Tensor] = {}
        self.task_gradient: Grads = {}
        self.references: dict[str, Grads] = {}
        self.row_losses: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.ran = self.finished = False

        rows, inputs = task.inputs.rows, task.inputs
        new = [i for batch in batches for i in batch]
        sizes = {name: len(pool.keys) for name, pool in task.pools.items()}
        context = DrawContext(index, total, len(new), sizes)
        longest = max(len(rows[i]) for i in new)
        self.drawn = draw_rows(self.recipe, task.pools, task.state, context, longest, inputs.seed, inputs.name)
        self.record.fed |= {part.method for part in self.drawn.parts if part.draw in self.drawn.rows}
        self.whole = MicroBatch(index, new, self.drawn.rows, sum(rows[i].targets for i in new), self.drawn.sizes)
        self.micro_batches = [part for micro in self._dealt(batches) for part in self._split(micro, room)]

    def gradients(self, backward: Backward = Tensor.backward) -> float:
        """Give every parameter the gradient with which the optimizer is to step, before clipping; return the loss.

        The gradients of the micro-batches sum to those of the update. Masks remove entries and directions of the sum, and the
        owner of the seam `gradient` may change the rest.

        Args:
            backward: The host's backward.

        Raises:
            Diverged: A term or a gradient is not finite; the message names the method and the update.
            OutOfMemory: One new row alone does not fit. Where more do not, micro-batches are halved, and the update is the same.
        """
        if self.ran:
            raise RuntimeError(f"the gradients of update {self.index} were computed already")
        self.ran = True
        if self.recipe.needs("before"):
            self.before = {name: value.detach().clone() for name, value in self.params.items()}
        before = self.record.tokens, self.record.rows
        while (loss := self._accumulate_all(backward)) is None:
            self._forget(*before)
        self.record.count(new=len(self.whole.new), drawn=sum(map(len, self.drawn.rows.values())))
        self._mask_and_turn()
        return loss

    def finish(self) -> None:
        """Write the values that methods hold, and run the seam `watch` on the weights after the optimizer step.

        Raises:
            Conflict: Two methods hold one parameter.
            Diverged: A value that a method holds is not finite.
        """
        if self.finished or not self.ran:
            raise RuntimeError(f"update {self.index} is finished once, after its gradients and the optimizer step")
        losses = {part: tuple(map(torch.cat, zip(*parts, strict=True))) for part, parts in self.row_losses.items()}
        step = Step(
            self.index,
            self.total,
            self.params,
            parts=parts_of(self.drawn, self.whole),
            before=self.before,
            task_grad=self.task_gradient,
            row_losses=losses,  # type: ignore[arg-type]
            refs=self.references if self.recipe.needs("refs") else {},
            runner=partial(run, self.task, self.drawn, self.whole),
            ends=self.task.validated,
        )
        with torch.no_grad():
            self._hold(step)
            for method in self.recipe.owners("watch"):
                self.task.state[method.name] = contiguous(method.watch(step, self.task.state[method.name]))
        self.finished = True
        self.closing()

    def _hold(self, step: Step) -> None:
        """Write the parameters that methods hold; nothing changes if the optimizer did not move them."""
        owners: dict[str, str] = {}
        for method in self.recipe.owners("hold"):
            values = method.hold(step, self.task.state[method.name])
            self._check(values, f"method {method.name} set values that are")
            for name in values:
                if name in owners:
                    raise Conflict(f"{owners[name]} and {method.name} both hold {name}; drop one of them")
                owners[name] = method.name
            moved = {name: value - self.params[name].detach() for name, value in values.items()}
            size = norm(moved)
            if size:
                self.record.acted.add(method.name)
            if self.meter and values:
                self.record.beat(self.index, method.name, Heartbeat(held=size))
            for name, value in values.items():
                self.params[name].copy_(value)

    def _dealt(self, batches: Sequence[Sequence[int]]) -> list[MicroBatch]:
        """Return the micro-batches, with the drawn rows divided among them."""
        parts = len(batches)
        return [
            replace(
                self.whole,
                new=batch,
                drawn={draw: rows[i::parts] for draw, rows in self.drawn.rows.items()},
                share=1 / parts,
            )
            for i, batch in enumerate(batches)
        ]

    def _split(self, micro: MicroBatch, room: float) -> list[MicroBatch]:
        """Return the micro-batch, split where its forwards would need too much memory and the methods support it."""
        if self.recipe.refusing("accumulation"):
            return [micro]
        rows, pools = self.task.inputs.rows, self.task.pools
        forwards = forwards_of(micro, rows, pools, self.task.trainable.reader.padded_tokens)
        return fitted(micro, rows, pools, forwards, room)

    def _accumulate_all(self, backward: Backward) -> float | None:
        """Run every micro-batch and return the loss; None where memory ran out, and micro-batches are smaller from here on."""
        torch.manual_seed(seed_of(self.task.inputs.seed, self.task.inputs.name, "dropout", self.index))
        loss = 0.0
        for micro in self.micro_batches:
            part = attempt(partial(self._accumulate, micro, backward))
            if part is None:
                self._halve(micro)
                return None
            loss += part
        return loss

    def _halve(self, micro: MicroBatch) -> None:
        """Split the micro-batches of this update, and of all that follow, to half of the size of one that did not fit.

        Raises:
            OutOfMemory: It has one new row, or a method takes an update in one piece.
        """
        rows, pools = self.task.inputs.rows, self.task.pools
        where = f"memory ran out at update {self.index} of {self.total}"
        if whole := self.recipe.refusing("accumulation"):
            raise OutOfMemory(
                f"{where}, and method {whole[0]} takes it in one piece; lower per_device_train_batch_size; {ADVICE}"
            )
        if len(micro.new) < 2:
            drawn = sum(map(len, micro.drawn.values()))
            longest = max(len(row) for row in rows_in(micro, rows, pools))
            raise OutOfMemory(
                f"{where}, with one new row and {drawn} drawn from memory, of {longest:,} tokens at most; {ADVICE}"
            )
        forwards = forwards_of(micro, rows, pools, self.task.trainable.reader.padded_tokens)
        self.room = math.ceil(min(size_of(forwards, rows, pools), self.room) / 2)
        self.micro_batches = [part for micro in self._dealt(self.batches) for part in self._split(micro, self.room)]
        self.record.memory_limits.append((self.index, self.room))

    def _forget(self, tokens: int, rows: RowsRun | None) -> None:
        """Drop all that the micro-batches of an update left that did not fit.

        Args:
            tokens: Tokens that had run when the update began.
            rows: Rows that had run then.
        """
        for value in self.params.values():
            value.grad = None
        self.task_gradient, self.references, self.row_losses = {}, {}, {}
        self.meter = EffectMeter() if self.meter else None
        self.record.tokens, self.record.rows = tokens, rows

    def _accumulate(self, micro: MicroBatch, backward: Backward) -> float:
        """Run one micro-batch forward and backward; return its share of the update's loss."""
        step, logits = step_of(self.task, self.drawn, micro, self.total)
        losses = step.new.cross_entropy(self.recipe.settings.label_smoothing_factor)  # type: ignore[union-attr]
        terms = {"task": step.new.mean(losses)}  # type: ignore[union-attr]
        factors = reweighted(self.recipe, step, self.task.state, losses, self.total)
        for method in self.recipe.owners("loss"):
            if (term := method.loss(step, self.task.state[method.name])) is not None:
                terms[method.name] = term
        references: dict[str, Tensor] = {}
        if owner := self.recipe.owner("reference"):
            references = owner.reference(step, self.task.state[owner.name])
        shown = {**terms}
        if factors:
            terms["task"] = factors.loss
            shown[factors.owner] = factors.change + terms.get(factors.owner, 0.0)
        amounts = self._numbers(terms)
        self._numbers(references, owner.name if owner else None)
        self.record.acted |= {name for name, value in amounts.items() if value and terms[name].requires_grad} - {"task"}
        if factors and factors.change.item():
            self.record.acted.add(factors.owner)
        if self.meter:
            self.meter.add(shown, logits, self.params)
            if factors:
                self.meter.weights[factors.owner] = self.meter.weights.get(factors.owner, 0.0) + factors.weight
        self._note_row_losses(step)
        loss = torch.stack(list(terms.values())).sum()
        for name, reference in sorted(references.items()):
            self.references[name] = added(self.references.get(name), gradients_of(reference, self.params, backward))
        if self.recipe.needs("task_grad"):
            self._backward_task_separately(terms, backward)
        else:
            backward(loss)
        return sum(amounts.values())

    def _backward_task_separately(self, terms: Mapping[str, Tensor], backward: Backward) -> None:
        """Add the gradients of all terms to the parameters', and store that of the task loss for methods that need it."""
        rest = [term for name, term in terms.items() if name != "task" and term.requires_grad]
        own = gradients_of(terms["task"], self.params, backward)
        self.task_gradient = added(self.task_gradient or None, own)
        for name, value in self.params.items():
            value.grad = grad_of(value) + own[name]
        if rest:
            backward(torch.stack(rest).sum())

    def _mask_and_turn(self) -> None:
        """Mask the gradients, and replace them by those of the method that owns `gradient`."""
        masks, owner = self.recipe.owners("mask"), self.recipe.owner("gradient")
        if not masks and not owner:
            self._record_effects({})
            return
        grads = {name: grad_of(value) for name, value in self.params.items()}
        self._record_effects(grads)
        for method in masks:
            masked = method.mask(grads, self.task.state[method.name])
            self._check(masked, f"method {method.name} gave a masked gradient that is")
            self.references = {
                name: method.mask(ref, self.task.state[method.name]) for name, ref in self.references.items()
            }
            if self.meter:
                share = 1 - (norm(masked) / max(norm(grads), 1e-30)) ** 2
                self.record.beat(self.index, method.name, Heartbeat(masked=share))
            grads = masked
        if owner:
            step = Step(self.index, self.total, self.params)
            made = owner.gradient(grads, self.references, step, self.task.state[owner.name])
            if any(made[name] is not grads[name] for name in grads):
                self.record.acted.add(owner.name)
            self._check(made, f"method {owner.name} gave a gradient that is")
            if self.meter:
                beat = Heartbeat(turned=turned(grads, made), rows=self._rows_drawn(owner.name))
                self.record.beat(self.index, owner.name, beat)
            grads = made
        for name, value in self.params.items():
            value.grad = grads[name].to(value.dtype)

    def _record_effects(self, grads: Grads) -> None:
        """Record the loss and the effect of each method's term, if this update is measured."""
        if not self.meter:
            return
        self.record.loss.append((self.index, self.meter.terms["task"]))
        size = norm(grads or {n: grad_of(v) for n, v in self.params.items()}) if self.meter.vectors else 0.0
        for name, beat in self.meter.pulls(size).items():
            self.record.beat(self.index, name, replace(beat, rows=self._rows_drawn(name)))

    def _rows_drawn(self, method: str) -> float | None:
        rows = self.drawn.rows_read_by(method)
        return None if rows is None else float(rows)

    def _note_row_losses(self, step: Step) -> None:
        """Store the loss of each drawn row for methods that need it in `watch`."""
        needing = self.recipe.needs("row_losses")
        for part in self.drawn.parts if needing else ():
            drawn = step.drawn.get(part.name)
            if part.method in needing and drawn is not None and drawn.row is not None:
                losses = drawn.by_row(drawn.cross_entropy().detach())
                self.row_losses.setdefault(part.name, []).append(losses)

    def _numbers(self, terms: Mapping[str, Tensor], owner: str | None = None) -> dict[str, float]:
        """Return the terms as numbers; one that is not finite is an error which names its method."""
        amounts = torch.stack([term.detach().float() for term in terms.values()]).tolist() if terms else []
        for name, value in zip(terms, amounts, strict=True):
            if not math.isfinite(value):
                what = "the task loss" if name == "task" else f"method {owner or name}"
                raise Diverged(
                    f"{what} gave {value} at update {self.index} of {self.total}; lower the learning rate or its strength"
                )
        return dict(zip(terms, amounts, strict=True))

    def _check(self, values: Mapping[str, Tensor], what: str) -> None:
        check_finite(values, what, self.index, self.total)
