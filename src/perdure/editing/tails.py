"""Forwards that repeat no work: the tokens before the subject's last one, and the blocks below the layer, run once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from perdure.editing.prompts import Line
from perdure.editing.site import Site
from perdure.model.batch import padded
from perdure.model.cache import cache_rows, growing_copy
from perdure.model.head import attention_for, logits_at, prefix_cache
from perdure.model.hooks import StopForward, hidden_of, hooked, with_hidden
from perdure.model.layout import Layout


@dataclass(frozen=True)
class Tails:
    """Lines cut at the subject's last token: the prefix as cached keys and values, the rest as tokens to run many times.

    Position 0 of every tail is the subject's last token.

    Args:
        ids: Tokens (rows, width) from the subject's last token on, padded on the right.
        mask: 1 for real tokens (rows, prefix + width).
        positions: Position of each token of `ids` in its line.
        past: Keys and values of the prefixes; None where no line has one.
        answers: For each row, (position in the tail, token) of every token of the answer.
        hidden: Input of block `below` (rows, width, hidden); None before `raise_to`.
        below: Number of blocks that are skipped.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    past: Any
    answers: tuple[tuple[tuple[int, int], ...], ...]
    hidden: Tensor | None = None
    below: int = 0

    def rows(self, wanted: Sequence[int]) -> "Tails":
        """Return some of the rows."""
        index = torch.tensor(list(wanted), device=self.ids.device)
        return replace(
            self,
            ids=self.ids[index],
            mask=self.mask[index],
            positions=self.positions[index],
            past=cache_rows(self.past, index),
            answers=tuple(self.answers[i] for i in wanted),
            hidden=None if self.hidden is None else self.hidden[index],
        )


@torch.no_grad()
def cut(site: Site, lines: Sequence[Line]) -> Tails:
    """Return the lines as tails, after one forward over their prefixes.

    Cost: one forward over the prefixes, without the head.
    """
    device = site.device
    before = max(line.last for line in lines)
    stops = [max(line.last + 1, len(line.ids) - 1 if line.answer < len(line.ids) else len(line.ids)) for line in lines]
    prefix, left = padded([line.ids[: line.last] for line in lines], site.pad, left=True)
    ids, right = padded([line.ids[line.last : stop] for line, stop in zip(lines, stops, strict=True)], site.pad)
    answers = [tuple((t - 1 - x.last, x.ids[t]) for t in range(x.answer, len(x.ids))) for x in lines]
    mask = torch.cat([left, right], 1).to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    past = None
    if before:
        with site.precision(), attention_for(before, device):
            past = prefix_cache(
                site.model,
                prefix.to(device),
                attention_mask=mask[:, :before],
                position_ids=positions[:, :before],
            )
    return Tails(ids.to(device), mask, positions[:, before:], past, tuple(answers))


def run(site: Site, tails: Tails, at: Tensor | None) -> Tensor:
    """Run the tails from block `below` on; return the logits (tokens, vocab) in float32 at `at` (row, position in the tail)."""
    start = nullcontext() if tails.hidden is None else _starting_at(site.layout, tails.below, tails.hidden)
    with site.precision(), start:
        return logits_at(
            site.model,
            at,
            columns=tails.mask.shape[1],
            input_ids=tails.ids,
            attention_mask=tails.mask,
            position_ids=tails.positions,
            past=growing_copy(tails.past),
            use_cache=tails.past is not None,
        ).logits


@torch.no_grad()
def raise_to(site: Site, tails: Tails, layer: int) -> Tails:
    """Return the tails with the input of block `layer`, so that the blocks below it do not run again."""
    seen: list[Tensor] = []

    def record(_: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).detach())
        raise StopForward

    with hooked(site.layout.blocks[layer].register_forward_pre_hook(record, with_kwargs=True)), suppress(StopForward):
        run(site, tails, None)
    return replace(tails, hidden=seen[0], below=layer)


@contextmanager
def adding(module: nn.Module, change: Tensor) -> Iterator[None]:
    """Add `change` (rows, hidden) to the output of a module at position 0 of every tail."""

    def add(_: nn.Module, __: tuple, output: Any) -> Any:
        hidden = hidden_of(output)
        first = hidden[:, :1] + change[:, None].to(hidden.dtype)
        return with_hidden(output, torch.cat([first, hidden[:, 1:]], dim=1))

    with hooked(module.register_forward_hook(add)):
        yield


@contextmanager
def _starting_at(layout: Layout, below: int, hidden: Tensor) -> Iterator[None]:
    """Let the first `below` blocks return their input, and block `below` begin with `hidden`.

    A hook cannot stop a module from running. So each block instance gets a `forward` that returns its input, and its own one back
    afterwards. Weights and buffers are not changed.
    """

    def begin(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    replaced = [(block, block.__dict__.get("forward")) for block in layout.blocks[:below]]
    for (block, _), kind in zip(replaced, layout.returns_tuple, strict=False):
        block.forward = _passing_tuple if kind else _passing
    try:
        with hooked(layout.blocks[below].register_forward_pre_hook(begin, with_kwargs=True)):
            yield
    finally:
        for block, own in replaced:
            del block.forward
            if own is not None:
                block.forward = own


def _passing(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _passing_tuple(hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return hidden_states, None
