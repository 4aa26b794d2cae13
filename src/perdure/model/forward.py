"""One forward through a model, with logits at label positions only: what `Learning` needs to know of rows and models."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from perdure.model.batch import Batch, collate, padded_tokens
from perdure.model.head import attention_for, only_at


class Output(NamedTuple):
    """Logits (tokens, vocab) in float32 and the hidden states (tokens, hidden) they were made from."""

    logits: Tensor
    hidden: Tensor


class Reader(Protocol):
    """Turns rows into batches and batches into outputs; one for tokens and one for feature vectors."""

    def collate(self, rows: Sequence[Any], *, share_prefix: bool = True) -> Any:
        """Return the batch of `rows`, with `at` (2, tokens: row and position of each label) and `labels` (tokens,)."""
        ...

    def padded_tokens(self, rows: Sequence[Any]) -> int:
        """Return what a forward over `rows` computes, padding included: tokens, or rows."""
        ...

    def forward(
        self, model: Any, batch: Any, weights: Mapping[str, Tensor] | None = None, embeddings: Tensor | None = None
    ) -> Output:
        """Return the outputs at the batch's label positions."""
        ...

    def embed(self, model: Any, batch: Any) -> Tensor:
        """Return the batch's input embeddings, rows first, detached."""
        ...


class Tokens:
    """Reads token rows for a causal language model.

    Args:
        pad: Token id used for padding.
        prefix: Whether the model can run a prefix once for several rows; see `Batching`.
    """

    def __init__(self, pad: int = 0, prefix: bool = True):
        self.pad, self.prefix = pad, prefix

    def collate(self, rows: Sequence[Any], *, share_prefix: bool = True) -> Batch:
        """Return the padded batch of `rows`."""
        return collate(rows, self.pad, share_prefix=share_prefix and self.prefix)

    def padded_tokens(self, rows: Sequence[Any]) -> int:
        """Return the tokens that a forward over `rows` computes, padding included."""
        return padded_tokens(rows, share_prefix=self.prefix)

    def forward(
        self, model: Any, batch: Batch, weights: Mapping[str, Tensor] | None = None, embeddings: Tensor | None = None
    ) -> Output:
        """Return the outputs at label positions.

        A prefix common to all rows runs once and its keys and values serve every row; gradients flow through it.
        `embeddings` takes the place of the tokens of a batch without a shared prefix.
        """
        device = next(model.parameters()).device
        ids, mask, at = batch.ids.to(device), batch.mask.to(device), batch.at.to(device)
        past = None
        shared = batch.prefix.numel()
        with attention_for(shared + ids.shape[1], device):
            if shared:
                with only_at(model, None):
                    prefix = {"input_ids": batch.prefix.to(device)[None], "use_cache": True}
                    past = call(model, weights, prefix).past_key_values
                past.batch_repeat_interleave(len(ids))
                mask = torch.cat([mask.new_ones(len(ids), shared), mask], dim=1)
            given: dict[str, Any] = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
            given |= {"attention_mask": mask, "past_key_values": past, "use_cache": past is not None}
            with only_at(model, at) as hidden:
                out = call(model, weights, given)
        return Output(out.logits[0].float(), hidden[0])

    def embed(self, model: Any, batch: Batch) -> Tensor:
        """Return the embeddings of the batch's tokens (rows, width, hidden), detached."""
        table = model.get_input_embeddings()
        return table(batch.ids.to(table.weight.device)).detach()


def call(model: Any, weights: Mapping[str, Tensor] | None, given: dict[str, Any]) -> Any:
    """Return what the model gives with `weights` in the place of its parameters of these names."""
    return model(**given) if weights is None else torch.func.functional_call(model, dict(weights), (), given)
