"""The forward of training: from rows to the logits at their label positions."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from perdure.model.batch import Batch, collate, common_prefix, padded_tokens
from perdure.model.head import attention_for, attention_mask, device_of, logits_at, prefix_cache
from perdure.model.recompute import activations_stored
from perdure.model.text_features import own_tokens, template_of, text_features

OnRows = Callable[[int, int], None]


class Output(NamedTuple):
    """Logits (tokens, vocab), in float32 unless they are not widened, and hidden states (tokens, hidden) they were made from."""

    logits: Tensor
    hidden: Tensor


class Reader(Protocol):
    """Turns rows into batches and batches into outputs; one for tokens and one for feature vectors."""

    def collate(self, rows: Sequence[Any], *, share_prefix: bool = True) -> Any:
        """Return the batch of `rows`, with `at` (2, tokens: row and position of each label) and `labels` (tokens,)."""
        ...

    def padded_tokens(self, rows: Sequence[Any]) -> int:
        """Return the size of a forward over `rows`, padding included, in tokens or rows."""
        ...

    def forward(
        self, model: Any, batch: Any, weights: Mapping[str, Tensor] | None = None, embeddings: Tensor | None = None
    ) -> Output:
        """Return the outputs at the batch's label positions."""
        ...

    def embed(self, model: Any, batch: Any) -> Tensor:
        """Return the batch's input embeddings, rows first, detached."""
        ...

    def template(self, rows: Sequence[Any]) -> int:
        """Return the number of leading tokens that all rows have in common."""
        ...

    def token_weights(self, batch: Any, skip: int) -> list[Tensor]:
        """Return how many tokens of rows each position of a batch is, of the shape of the ids, for each forward that it takes.

        Args:
            batch: A batch.
            skip: Tokens at the start of each row that count as none.
        """
        ...

    def features(
        self, model: Any, rows: Sequence[Any], layer: int | None, on_rows: OnRows | None = None
    ) -> tuple[Tensor, list[str | None]]:
        """Return a feature vector of each row (rows, d), float32, on the CPU, and the rows' labels."""
        ...


class Tokens:
    """Reads token rows for a causal language model.

    Args:
        pad: Token id used for padding.
        prefix: Whether the model can run a prefix once for several rows; see `Batching`.
        packing: Whether several rows may stand in one line; see `Batching`.
        opening: Token id that stands before a text alone; that of padding unless given.
        alone: Returns the tokens of a part of a row as they are where the part is a text alone; the same ones unless given.
    """

    def __init__(
        self,
        pad: int = 0,
        prefix: bool = True,
        packing: bool = False,
        opening: int | None = None,
        alone: Callable[[Sequence[int]], Sequence[int]] = tuple,
    ):
        self.pad, self.prefix, self.packing, self.alone = pad, prefix, packing, alone
        self.opening = pad if opening is None else opening

    def collate(self, rows: Sequence[Any], *, share_prefix: bool = True) -> Batch:
        """Return the padded batch of `rows`; without a shared prefix each row has a line of its own too."""
        packing = self.packing and share_prefix
        return collate(rows, self.pad, share_prefix=share_prefix and self.prefix, packing=packing)

    def padded_tokens(self, rows: Sequence[Any]) -> int:
        """Return the tokens that a forward over `rows` computes, padding included."""
        return padded_tokens(rows, share_prefix=self.prefix, packing=self.packing)

    def forward(
        self,
        model: Any,
        batch: Batch,
        weights: Mapping[str, Tensor] | None = None,
        embeddings: Tensor | None = None,
        *,
        widen: bool = True,
    ) -> Output:
        """Return the outputs at label positions.

        A prefix common to all rows runs once and its keys and values serve every row; gradients flow through it. A token of a
        packed row attends to the prefix and its own row, at the same positions as alone.
        `embeddings` replaces the tokens of a batch without a shared prefix. Without `widen`, logits have the forward's dtype.
        """
        device = device_of(model)
        packing, shared = batch.packing, batch.prefix.numel()
        ids, mask, past = batch.ids.to(device), batch.mask.to(device), None
        at = (packing.at if packing else batch.at).to(device)
        columns = shared + ids.shape[1]
        if shared:
            with attention_for(columns, device):
                past = prefix_cache(model, batch.prefix.to(device)[None], weights)
            past.batch_repeat_interleave(len(ids))
            mask = torch.cat([mask.new_ones(len(ids), shared), mask], dim=1)
        given: dict[str, Any] = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
        if packing:
            mask = attention_mask(model, packing.sees(shared)).to(device)
            given["position_ids"] = (packing.position + shared).to(device)
        given |= {"attention_mask": mask, "use_cache": past is not None}
        swapped = weights is not None and torch.is_grad_enabled()
        with activations_stored(model) if swapped else nullcontext():
            out = logits_at(model, at, columns=columns, weights=weights, past=past, widen=widen, **given)
        return Output(out.logits, out.hidden)

    def embed(self, model: Any, batch: Batch) -> Tensor:
        """Return the embeddings of the batch's tokens (rows, width, hidden), detached."""
        table = model.get_input_embeddings()
        return table(batch.ids.to(table.weight.device)).detach()

    def template(self, rows: Sequence[Any]) -> int:
        """Return the number of leading tokens that all rows have in common; the last token that the model reads is never one."""
        return common_prefix([row.ids for row in rows], min(row.last for row in rows) - 1) if rows else 0

    def token_weights(self, batch: Batch, skip: int) -> list[Tensor]:
        """Return the weights of the prefix, if there is one, and of the lines: a token of the prefix is one of every row."""
        shared, packing = batch.prefix.numel(), batch.packing
        at = torch.arange(batch.ids.shape[1]).expand_as(batch.ids) if packing is None else packing.position
        real = batch.mask > 0 if packing is None else packing.row >= 0
        rows = len(batch.ids) if packing is None else int(packing.row.max()) + 1
        lines = (real & (at + shared >= skip)).float()
        prefix = rows * (torch.arange(shared) >= skip).float()[None]
        return [prefix, lines] if shared else [lines]

    def features(
        self, model: Any, rows: Sequence[Any], layer: int | None, on_rows: OnRows | None = None
    ) -> tuple[Tensor, list[str | None]]:
        """Return the features of the rows' own texts, and their labels; see `text_features`.

        The own text of a row is its prompt without the tokens that the prompts of all rows have in common at both ends. A row
        without a prompt is read whole.
        """
        prompts = [row.ids[: row.first if row.prompt is None else row.prompt] or row.ids for row in rows]
        template = template_of([prompt for prompt, row in zip(prompts, rows, strict=True) if not row.cut])
        texts = [self.alone(own_tokens(prompt, template)) for prompt in prompts]
        features = text_features(model, texts, opening=self.opening, pad=self.pad, layer=layer, on_rows=on_rows)
        return features, [row.label for row in rows]
