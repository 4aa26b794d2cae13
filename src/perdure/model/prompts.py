"""Prompts that a model reads and continues, in a batch, each with the logits that it has alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.model.batch import common_prefix, padded
from perdure.model.batching import Batching
from perdure.model.cache import spread_over_rows
from perdure.model.head import HeadOutput, device_of, logits_at, prefix_cache


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return the number of leading tokens that all prompts share, with at least one token left for each."""
    return common_prefix(prompts, min(map(len, prompts)) - 1)


class CachedPrompts:
    """Prompts that the model has read, ready to be continued, and the logits of their next token.

    Args:
        model: A causal language model.
        prompts: Token ids of each prompt, none empty.
        pad: Token id for padding.
        batching: The kinds of batches that are exact for this model.
        more: Most tokens that will be appended to a prompt; None where that is not known.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, batching: Batching, more: int | None = None
    ):
        self.model, self.device, self.pad, self.batching = model, device_of(model), pad, batching
        self.past: Any = None
        self.rows = [list(prompt) for prompt in prompts]  # without a cache the whole rows run for each new token
        if batching.decoding == "whole":
            self.logits = self._whole([(n, len(row) - 1) for n, row in enumerate(self.rows)])
            return
        columns = None if more is None else max(map(len, prompts)) + more
        shared = 0 if batching.decoding == "padded" else shared_prefix(prompts)
        if shared and batching.fits(columns):
            ids, mask = padded([prompt[shared:] for prompt in prompts], pad, left=True)
            mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
            self.past = self._prefix(prompts[0][:shared])
            self.past.batch_repeat_interleave(len(prompts))
        else:
            ids, mask = padded(prompts, pad, left=True)
            ids = ids[:, shared:]
            if shared:
                plain = type(self._prefix(prompts[0][:1]))()  # stores all keys, also those outside a window
                self.past = self._prefix(prompts[0][:shared], plain)
                spread_over_rows(self.past, shared, ids.shape[1] + shared - mask.sum(1))
        self.mask = mask.to(self.device)
        self.logits = self._behind(ids.to(self.device), self._last(*ids.shape))

    def select(self, rows: Tensor) -> None:
        """Continue with only these rows (or with copies of them)."""
        self.rows = [list(self.rows[row]) for row in rows.tolist()]
        if self.past is not None:
            self.past.reorder_cache(rows)
            self.mask = self.mask[rows]

    def append(self, ids: Tensor, mask: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Append tokens to each prompt and return their logits.

        Args:
            ids: Token ids (rows, width), on the model's device.
            mask: 1 for real tokens (rows, width); all are unless given.
            at: Row and position (2, tokens) in `ids` of the logits; each row's last token unless given.

        Returns:
            Logits (tokens, vocab) in float32.
        """
        mask = torch.ones_like(ids) if mask is None else mask
        at = self._last(*ids.shape) if at is None else at
        if self.batching.spans:  # with a cache the whole rows are not needed
            self.mask = torch.cat([self.mask, mask], dim=1)
            return self._behind(ids, at)
        starts = [len(row) for row in self.rows]
        for row, own, real in zip(self.rows, ids.tolist(), mask.tolist(), strict=True):
            row += [token for token, is_real in zip(own, real, strict=True) if is_real]
        if self.past is not None and ids.shape[1] == 1:
            self.mask = torch.cat([self.mask, mask], dim=1)
            return self._behind(ids, at)
        self.past = None  # the cache will not have these tokens
        return self._whole([(row, starts[row] + t) for row, t in at.T.tolist()])

    def _whole(self, at: list[tuple[int, int]]) -> Tensor:
        """Return the logits at `at` (row, position) of a forward over the whole rows."""
        ids, mask = padded(self.rows, self.pad)
        given: dict[str, Any] = {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.to(self.device),
            "use_cache": False,
        }
        return logits_at(self.model, torch.tensor(at).T, columns=ids.shape[1], **given).logits

    def _behind(self, ids: Tensor, at: Tensor) -> Tensor:
        """Return the logits at `at` of `ids` after the cache, which grows by them."""
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :] if self.batching.positions else None
        out: HeadOutput = logits_at(
            self.model,
            at,
            columns=self.mask.shape[1],
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past=self.past,
            use_cache=True,
        )
        self.past = out.past
        return out.logits

    def _last(self, rows: int, width: int) -> Tensor:
        """Return row and position of each row's last column."""
        return torch.stack([torch.arange(rows), torch.full((rows,), width - 1)]).to(self.device)

    def _prefix(self, ids: Sequence[int], past: Any = None) -> Any:
        """Return the cache of a prefix of all rows."""
        return prefix_cache(self.model, torch.tensor([list(ids)], device=self.device), past=past)
