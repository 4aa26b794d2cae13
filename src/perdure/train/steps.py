"""The step of a micro-batch: the shared forward, each method's slice of it, and further forwards that methods run."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from perdure.core.keyed import seed_of
from perdure.core.step import Slice, Step
from perdure.model.forward import Output
from perdure.train.draws import DrawName, DrawnRows, MicroBatch, rows_in
from perdure.train.slices import cut, with_columns
from perdure.train.splitting import forwards_of
from perdure.train.task import OpenTask


def step_of(task: OpenTask, drawn: DrawnRows, micro: MicroBatch, total: int) -> tuple[Step, list[Tensor]]:
    """Return the step of a micro-batch, with the logits of its forwards over new rows and draws; usually there is one.

    Draws that only a reference loss reads run in a separate forward, so that no backward passes through rows that it does not
    need.

    Args:
        task: The task that is learned.
        drawn: The draws of the update.
        micro: The micro-batch.
        total: Updates of the whole task.
    """
    referred = _referred(task, drawn, micro)
    separate = referred | set(drawn.waiting)
    shared = replace(micro, drawn={draw: rows for draw, rows in micro.drawn.items() if draw not in separate})
    first, *others = forwards_of(shared, task.inputs.rows, task.pools, task.trainable.reader.padded_tokens)
    new, parts, out = _forward(task, drawn, first)
    logits = [out.logits]
    for other in others:
        _, more, out = _forward(task, drawn, other)
        parts |= more
        logits.append(out.logits)
    for draw in sorted(referred):
        parts |= _forward(task, drawn, replace(micro, new=[], drawn={draw: micro.drawn[draw]}))[1]
    if task.columns:
        new = with_columns(new, task.columns, task.inputs.rows, micro.new)
    step = Step(
        micro.update,
        total,
        task.params,
        micro.share,
        new,
        parts,
        parts_of(drawn, micro),
        runner=partial(run, task, drawn, micro),
        embedder=partial(embed, task, drawn, micro),
    )
    return step, logits


def parts_of(drawn: DrawnRows, micro: MicroBatch) -> set[str]:
    """Return the parts of a micro-batch that methods can run again."""
    return {part.name for part in drawn.parts if micro.drawn.get(part.draw)}


def _forward(task: OpenTask, drawn: DrawnRows, micro: MicroBatch) -> tuple[Slice, dict[str, Slice], Output]:
    """Return the new rows' slice, each method's slice of the draws, and the outputs of the forward."""
    rows = rows_in(micro, task.inputs.rows, task.pools)
    batch = task.trainable.reader.collate(rows)
    with task.trainable.precision():
        out = task.trainable.reader.forward(task.model, batch)
    task.record.tokens += sum(len(row) for row in rows)
    task.record.count(forwards=len(rows))
    return *cut(micro, batch, out, task.pools, drawn.parts), out


def _referred(task: OpenTask, drawn: DrawnRows, micro: MicroBatch) -> set[DrawName]:
    """Return the draws that only the owner of `reference` reads, where it adds nothing to the loss."""
    owner = task.recipe.owner("reference")
    if owner is None or "loss" in owner.seams:
        return set()
    others = {part.draw for part in drawn.parts if part.method != owner.name}
    return {draw for draw, rows in micro.drawn.items() if rows and draw not in others}


def run(
    task: OpenTask,
    drawn: DrawnRows,
    micro: MicroBatch,
    part: str,
    *,
    weights: Mapping[str, Tensor] | None = None,
    embeddings: Tensor | None = None,
    grad: bool = False,
) -> Slice:
    """Return the outputs of another forward on one part of a micro-batch; see `Step.run`."""
    reader, inputs = task.trainable.reader, task.inputs
    mine = _only(drawn, micro, part)
    rows = rows_in(mine, inputs.rows, task.pools)
    batch = reader.collate(rows, share_prefix=False)
    task.record.count(forwards=len(rows))
    if weights:  # methods store them in float32 or wider
        weights = {name: value.to(task.params[name].dtype) for name, value in weights.items()}
    mode = nullcontext() if grad else task.inference.eval_mode()  # without gradients there is no dropout
    with torch.random.fork_rng(), torch.set_grad_enabled(grad), task.trainable.precision(), mode:
        torch.manual_seed(seed_of(inputs.seed, inputs.name, "run", part, micro.update))
        out = reader.forward(task.model, batch, weights, embeddings)
    new, parts = cut(mine, batch, out, task.pools, drawn.parts)
    if part == "new":
        return with_columns(new, task.columns, inputs.rows, micro.new) if task.columns else new
    return parts[part]


def embed(task: OpenTask, drawn: DrawnRows, micro: MicroBatch, part: str) -> Tensor:
    """Return the input embeddings of one part of a micro-batch; see `Step.embed`."""
    reader, rows = task.trainable.reader, rows_in(_only(drawn, micro, part), task.inputs.rows, task.pools)
    return reader.embed(task.model, reader.collate(rows, share_prefix=False))


def _only(drawn: DrawnRows, micro: MicroBatch, part: str) -> MicroBatch:
    """Return the micro-batch with only the rows of `part`; the totals of its update do not change."""
    if part == "new":
        return replace(micro, drawn={})
    draw = drawn.draw_of(part)
    return replace(micro, new=(), drawn={draw: micro.drawn[draw]})
