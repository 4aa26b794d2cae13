"""Forwards that compute nothing twice: what stands left of the subject's last token, and the blocks below, run once."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from perdure.editing.prompts import Line
from perdure.model.head import attention_for, only_at
from perdure.model.layout import Layout, Precision, hidden_of, hooked, with_hidden


@dataclass(frozen=True)
class Site:
    """A model at hand, with what is needed to edit it; nothing of it is ever written.

    Args:
        model: The causal language model in the state to be edited, bare or with an adapter over it.
        tokenizer: Its tokenizer.
        layout: Where its parts are.
        precision: Context of a forward.
    """

    model: Any
    tokenizer: Any
    layout: Layout
    precision: Precision

    @property
    def pad(self) -> int:
        """Token id for padding; it is masked, so any will do."""
        return self.tokenizer.pad_token_id or 0

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.layout.embedding.weight.device  # type: ignore[return-value]


@dataclass(frozen=True)
class Tails:
    """Lines cut at the subject's last token: the part before it as keys and values, the rest as tokens to run again and again.

    Position 0 of every tail is the subject's last token.

    Args:
        ids: Tokens (rows, width) from the subject's last token on, padded on the right.
        mask: 1 for real tokens (rows, prefix + width).
        positions: Position of each token of `ids` in its line.
        past: Keys and values of the prefixes; None where no line has one.
        answers: For each row, (position in the tail, token) of every token of the answer.
        hidden: Input of block `below` (rows, width, hidden), None before `raise_to`.
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
        past = _shallow(self.past)
        for layer in past.layers if past is not None else ():
            if layer.is_initialized:
                layer.keys, layer.values = layer.keys[index], layer.values[index]
        return replace(
            self,
            ids=self.ids[index],
            mask=self.mask[index],
            positions=self.positions[index],
            past=past,
            answers=tuple(self.answers[i] for i in wanted),
            hidden=None if self.hidden is None else self.hidden[index],
        )


@torch.no_grad()
def cut(site: Site, lines: Sequence[Line]) -> Tails:
    """Return the lines as tails, their prefixes run once.

    Cost: one forward over the prefixes, without the head.
    """
    device = site.device
    before = max(line.last for line in lines)
    stops = [max(line.last + 1, len(line.ids) - 1 if line.answer < len(line.ids) else len(line.ids)) for line in lines]
    width = max(stop - line.last for line, stop in zip(lines, stops, strict=True))
    prefix = torch.full((len(lines), before), site.pad)
    ids = torch.full((len(lines), width), site.pad)
    mask = torch.zeros(len(lines), before + width, dtype=torch.long)
    answers = []
    for row, (line, stop) in enumerate(zip(lines, stops, strict=True)):
        prefix[row, before - line.last :] = torch.tensor(line.ids[: line.last])
        ids[row, : stop - line.last] = torch.tensor(line.ids[line.last : stop])
        mask[row, before - line.last : before + stop - line.last] = 1
        answers.append(tuple((t - 1 - line.last, line.ids[t]) for t in range(line.answer, len(line.ids))))
    mask = mask.to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    past = None
    if before:
        with site.precision(), attention_for(before, device), only_at(site.model, None):
            past = site.model(
                input_ids=prefix.to(device),
                attention_mask=mask[:, :before],
                position_ids=positions[:, :before],
                use_cache=True,
            ).past_key_values
    return Tails(ids.to(device), mask, positions[:, before:], past, tuple(answers))


def run(site: Site, tails: Tails, at: Tensor | None) -> Tensor:
    """Run the tails from block `below` on; return the logits (tokens, vocab) in float32 at `at` (row, position in the tail)."""
    with ExitStack() as stack:
        stack.enter_context(site.precision())
        stack.enter_context(attention_for(tails.mask.shape[1], site.device))
        stack.enter_context(only_at(site.model, at))
        if tails.hidden is not None:
            stack.enter_context(_starting_at(site.layout, tails.below, tails.hidden))
        out = site.model(
            input_ids=tails.ids,
            attention_mask=tails.mask,
            position_ids=tails.positions,
            past_key_values=_shallow(tails.past),
            use_cache=tails.past is not None,
        )
    return out.logits[0].float()


@torch.no_grad()
def raise_to(site: Site, tails: Tails, layer: int) -> Tails:
    """Return the tails with the input of block `layer`, so that the blocks below it never run again."""
    seen: list[Tensor] = []

    def look(_: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).detach())
        raise Enough

    with hooked(site.layout.blocks[layer].register_forward_pre_hook(look, with_kwargs=True)), suppress(Enough):
        run(site, tails, None)
    return replace(tails, hidden=seen[0], below=layer)


@contextmanager
def adding(module: nn.Module, change: Callable[[], Tensor]) -> Iterator[None]:
    """Add `change()` (rows, hidden) to what a module returns at position 0 of every tail."""

    def add(_: nn.Module, __: tuple, output: Any) -> Any:
        hidden = hidden_of(output)
        first = hidden[:, :1] + change()[:, None].to(hidden.dtype)
        return with_hidden(output, torch.cat([first, hidden[:, 1:]], dim=1))

    with hooked(module.register_forward_hook(add)):
        yield


class Enough(Exception):
    """Raised by a hook that has seen all that is wanted, so that the blocks above need not run."""


@contextmanager
def _starting_at(layout: Layout, below: int, hidden: Tensor) -> Iterator[None]:
    """Let the first `below` blocks pass on what they get, and block `below` begin with `hidden`.

    A hook cannot keep a module from running, so the blocks' `forward` is covered by one that does nothing, on the instance, and
    uncovered again. Weights and buffers are not touched.
    """

    def begin(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    covered = [(block, block.__dict__.get("forward")) for block in layout.blocks[:below]]
    for (block, _), kind in zip(covered, layout.returns_tuple, strict=False):
        block.forward = _passing_tuple if kind else _passing
    try:
        with hooked(layout.blocks[below].register_forward_pre_hook(begin, with_kwargs=True)):
            yield
    finally:
        for block, own in covered:
            del block.forward
            if own is not None:
                block.forward = own


def _passing(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _passing_tuple(hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return hidden_states, None


def _shallow(past: Any) -> Any:
    """Return a cache that shares the tensors of `past` but grows on its own (a dynamic cache grows by concatenation)."""
    if past is None:
        return None
    fresh = copy.copy(past)
    fresh.layers = [copy.copy(layer) for layer in past.layers]
    return fresh
