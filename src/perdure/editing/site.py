"""A model at hand, with what is needed to edit it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.model.batch import padded
from perdure.model.head import logits_at
from perdure.model.layout import Layout, Precision


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

    def logits(self, rows: Sequence[Sequence[int]], at: Tensor) -> Tensor:
        """Return the logits (tokens, vocab) in float32 at some positions of rows of tokens, which run whole.

        Args:
            rows: Token ids of each row.
            at: Row and position (2, tokens).
        """
        ids, mask = padded(rows, self.pad)
        given: dict[str, Any] = {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.to(self.device),
            "use_cache": False,
        }
        with self.precision():
            return logits_at(self.model, at, columns=ids.shape[1], **given).logits

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.layout.embedding.weight.device  # type: ignore[return-value]
