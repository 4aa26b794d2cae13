"""A model at hand, with what is needed to edit it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from perdure.core.errors import BadInput
from perdure.model.batch import padded
from perdure.model.head import logits_at
from perdure.model.layout import Layout, Precision, find_layout
from perdure.model.probing import batching_of


class Tokenizer(Protocol):
    """What editing needs of a tokenizer; a fast one of Hugging Face has it all."""

    is_fast: bool
    chat_template: Any
    pad_token_id: int | None
    eos_token_id: int | None
    all_special_ids: list[int]

    def __call__(self, text: str, **options: Any) -> Any:
        """Return the tokens of a text: "input_ids" and, where they are wanted, "offset_mapping"."""
        ...

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """Return the text of tokens."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each token."""
        ...

    def __len__(self) -> int: ...


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
    tokenizer: Tokenizer
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


@contextmanager
def open_site(model: Any, tokenizer: Tokenizer, precision: Precision = nullcontext) -> Iterator[Site]:
    """Yield the model as a site: in eval mode, with nothing trainable; both are as they were afterwards.

    Raises:
        BadInput: The model cannot be edited; see `find_layout`.
    """
    training = [module for module in model.modules() if module.training]
    trainable = [value for value in model.parameters() if value.requires_grad]
    model.eval()
    model.requires_grad_(False)
    try:
        layout = find_layout(model, precision)
        if not batching_of(model).spans:
            raise BadInput(
                "this model cannot read several tokens behind the cache of padded rows, which editing does all the time. Train "
                "the facts instead (perdure learn)"
            )
        yield Site(model, tokenizer, layout, precision)
    finally:
        for module in training:
            module.training = True
        for value in trainable:
            value.requires_grad_(True)
