"""Prompts that a model reads and continues, in a batch, each with the logits that it has alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.model.batching import Batching
from perdure.model.head import attention_for, only_at


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all prompts share, leaving each at least one of its own."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    limit = min(len(p) for p in prompts) - 1
    return next((t for t in range(limit) if first[t] != last[t]), max(limit, 0))


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask (prompts, width), padded on the left."""
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


def right_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask (rows, width), padded on the right."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


class Reading:
    """Prompts that the model has read, ready to be continued, and the logits of their next token.

    Args:
        model: A causal language model.
        prompts: Token ids of each prompt, none empty.
        pad: Token id for padding.
        batching: Which batches are exact for this model.
        more: Most tokens that will be read behind a prompt; None where that is not known.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, batching: Batching, more: int | None = None
    ):
        self.model, self.device, self.pad, self.batching = model, next(model.parameters()).device, pad, batching
        self.past: Any = None
        self.rows = [list(prompt) for prompt in prompts]  # read again and again where there is no cache
        if batching.decoding == "whole":
            self.logits = self._again([(n, len(row) - 1) for n, row in enumerate(self.rows)])
            return
        columns = None if more is None else max(map(len, prompts)) + more
        shared = 0 if batching.decoding == "padded" else shared_prefix(prompts)
        if shared and batching.fits(columns):
            ids, mask = left_padded([prompt[shared:] for prompt in prompts], pad)
            mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
            self.past = self._prefix(prompts[0][:shared], None)
            self.past.batch_repeat_interleave(len(prompts))
        else:
            ids, mask = left_padded(prompts, pad)
            ids = ids[:, shared:]
            if shared:
                self.past = self._moved(prompts, shared)
        self.mask = mask.to(self.device)
        self.logits = self._forward(ids.to(self.device), self._last(*ids.shape))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only (or with copies of them)."""
        self.rows = [list(self.rows[row]) for row in rows.tolist()]
        if self.past is not None:
            self.past.reorder_cache(rows)
            self.mask = self.mask[rows]

    def read(self, ids: Tensor, mask: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Read `ids` (rows, width) behind what was read; return the logits at `at`, by default of each row's last token."""
        mask = torch.ones_like(ids) if mask is None else mask
        at = self._last(*ids.shape) if at is None else at
        if self.batching.spans:  # then nothing asks for the rows again
            self.mask = torch.cat([self.mask, mask], dim=1)
            return self._forward(ids, at)
        starts = [len(row) for row in self.rows]
        for row, own, real in zip(self.rows, ids.tolist(), mask.tolist(), strict=True):
            row += [token for token, is_real in zip(own, real, strict=True) if is_real]
        if self.past is not None and ids.shape[1] == 1:
            self.mask = torch.cat([self.mask, mask], dim=1)
            return self._forward(ids, at)
        self.past = None  # it will not know these tokens
        return self._again([(row, starts[row] + t) for row, t in at.T.tolist()])

    def _again(self, at: list[tuple[int, int]]) -> Tensor:
        ids, mask = right_padded(self.rows, self.pad)
        with attention_for(ids.shape[1], self.device), only_at(self.model, torch.tensor(at).T):
            out = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False)
        return out.logits[0].float()

    def _forward(self, ids: Tensor, at: Tensor) -> Tensor:
        width = ids.shape[1]
        given = {"input_ids": ids, "attention_mask": self.mask, "past_key_values": self.past, "use_cache": True}
        if self.batching.positions:
            given["position_ids"] = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -width:]
        with attention_for(self.mask.shape[1], self.device), only_at(self.model, at):
            out = self.model(**given)
        self.past = out.past_key_values
        return out.logits[0].float()  # (tokens, vocab)

    def _last(self, rows: int, width: int) -> Tensor:
        """Return the place of each row's last column."""
        return torch.stack([torch.arange(rows), torch.full((rows,), width - 1)]).to(self.device)

    def _prefix(self, prefix: Sequence[int], past: Any) -> Any:
        """Return the cache of a prefix of all rows, run once."""
        ids = torch.tensor([list(prefix)], device=self.device)
        with only_at(self.model, None):
            return self.model(input_ids=ids, past_key_values=past, use_cache=True).past_key_values

    def _moved(self, prompts: Sequence[Sequence[int]], shared: int) -> Any:
        """Return the cache of the first `shared` columns of the left-padded prompts; the prefix that all share runs once.

        A row that is padded has its prefix further to the right: its keys and values are moved by as much, and what leaves the
        columns on the right is read with the rest of the row.
        """
        plain = type(self._prefix(prompts[0][:1], None))()  # one that keeps all keys, also those that a window forgets
        past = self._prefix(prompts[0][:shared], plain)
        width = max(map(len, prompts))
        moves = torch.tensor([width - len(prompt) for prompt in prompts])
        columns = (torch.arange(shared) - moves[:, None]).clamp(min=0).to(self.device)  # (rows, shared)
        for layer in past.layers:
            if layer.is_initialized:  # a layer that uses the keys of another has none
                layer.keys = layer.keys[0][:, columns].transpose(0, 1)
                layer.values = layer.values[0][:, columns].transpose(0, 1)
        return past
