"""One micro-batch's step: the shared forward, each method's part of it, and the forwards that a method may ask for."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from perdure.core.keyed import seed_of
from perdure.core.step import Slice, Step
from perdure.model.forward import Output
from perdure.train.draws import Micro, cut, forwards_of, rows_in, with_columns

if TYPE_CHECKING:
    from perdure.train.learning import Learning


def step_of(learning: "Learning", micro: Micro) -> tuple[Step, list[Tensor]]:
    """Return the step of a micro-batch, with the logits of its forwards over new rows and draws; mostly that is one.

    Draws that only a reference reads run by themselves, so that no backward passes through rows of which it wants nothing.
    """
    referred = _referred(learning, micro)
    apart = referred | set(learning.drawn.waiting)
    shared = replace(micro, drawn={draw: rows for draw, rows in micro.drawn.items() if draw not in apart})
    first, *others = forwards_of(shared, learning.rows, learning.pools, learning.reader.padded_tokens)
    new, drawn, out = _forward(learning, first)
    logits = [out.logits]
    for other in others:
        _, more, out = _forward(learning, other)
        drawn |= more
        logits.append(out.logits)
    for draw in sorted(referred):
        drawn |= _forward(learning, replace(micro, new=[], drawn={draw: micro.drawn[draw]}))[1]
    if learning.columns:
        new = with_columns(new, learning.columns, learning.rows, micro.new)
    step = Step(
        micro.update,
        learning.total,
        learning.params,
        micro.share,
        new,
        drawn,
        parts_of(learning, micro),
        runner=partial(run, learning, micro),
        embedder=partial(embed, learning, micro),
    )
    return step, logits


def parts_of(learning: "Learning", micro: Micro) -> set[str]:
    """Return the parts of a micro-batch that methods can run again."""
    return {part for part, draw in learning.drawn.reads.items() if micro.drawn.get(draw)}


def _forward(learning: "Learning", micro: Micro) -> tuple[Slice, dict[str, Slice], Output]:
    """Return the new rows' slice, each method's part of the draws, and the outputs they are cut from."""
    encoded = rows_in(micro, learning.rows, learning.pools)
    batch = learning.reader.collate(encoded)
    with learning.precision():
        out = learning.reader.forward(learning.model, batch)
    learning.record.tokens += sum(len(row) for row in encoded)
    return *cut(micro, batch.at, batch.labels, out, learning.pools, learning.drawn.reads), out


def _referred(learning: "Learning", micro: Micro) -> set[str]:
    """Return the draws that nobody reads but the owner of `reference`, who adds nothing to the loss."""
    owner = learning.recipe.owner("reference")
    if owner is None or "loss" in owner.seams:
        return set()
    others = {draw for part, draw in learning.drawn.reads.items() if part.split(".")[0] != owner.name}
    return {draw for draw, rows in micro.drawn.items() if rows and draw not in others}


def run(
    learning: "Learning",
    micro: Micro,
    part: str,
    *,
    weights: Mapping[str, Tensor] | None = None,
    embeddings: Tensor | None = None,
    grad: bool = False,
) -> Slice:
    """Return the outputs on one part of a micro-batch of another forward; see `Step.run`."""
    mine = _only(learning, micro, part)
    batch = learning.reader.collate(rows_in(mine, learning.rows, learning.pools), share_prefix=False)
    if weights:  # as kept by a method, in float32 or wider
        weights = {name: value.to(learning.params[name].dtype) for name, value in weights.items()}
    mode = nullcontext() if grad else learning.still()  # what is only looked at has no dropout
    with torch.random.fork_rng(), torch.set_grad_enabled(grad), learning.precision(), mode:
        torch.manual_seed(seed_of(learning.seed, learning.task, "run", part, micro.update))
        out = learning.reader.forward(learning.model, batch, weights, embeddings)
    new, drawn = cut(mine, batch.at, batch.labels, out, learning.pools, learning.drawn.reads)
    if part == "new":
        return with_columns(new, learning.columns, learning.rows, micro.new) if learning.columns else new
    return drawn[part]


def embed(learning: "Learning", micro: Micro, part: str) -> Tensor:
    """Return the input embeddings of one part of a micro-batch; see `Step.embed`."""
    rows = rows_in(_only(learning, micro, part), learning.rows, learning.pools)
    return learning.reader.embed(learning.model, learning.reader.collate(rows, share_prefix=False))


def _only(learning: "Learning", micro: Micro, part: str) -> Micro:
    """Return the micro-batch with the rows of `part` alone; the totals of its update stay."""
    if part == "new":
        return replace(micro, drawn={})
    draw = learning.drawn.reads[part]
    return replace(micro, new=(), drawn={draw: micro.drawn[draw]})
