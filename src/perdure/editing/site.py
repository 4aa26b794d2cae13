"""A model with everything that is needed to edit it."""

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
    """The parts of a tokenizer that editing needs; a fast tokenizer of Hugging Face has all of them."""

    is_fast: bool
    chat_template: Any
    pad_token_id: int | None
    eos_token_id: int | None
    all_special_ids: list[int]

    def __call__(self, text: str, **options: Any) -> Any:
        """Return the tokens of a text: "input_ids" and, on request, "offset_mapping"."""
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
    """A model with everything that is needed to edit it. Its weights are never changed.

    Args:
        model: The causal language model in the state to be edited, with or without an adapter.
        tokenizer: Its tokenizer.
        layout: The modules that editing reads and changes.
        precision: Context of a forward.
    """

    model: Any
    tokenizer: Tokenizer
    layout: Layout
    precision: Precision

    @property
    def pad(self) -> int:
        """Token id for padding. Padding is masked, so any id works."""
        return self.tokenizer.pad_token_id or 0

    def logits(self, rows: Sequence[Sequence[int]], at: Tensor) -> Tensor:
        """Return the logits (tokens, vocab) in float32 at some positions, after a forward over the whole rows.

        Args:
            rows: Token ids of each row.
            at: Row and position (2, tokens).
        """
        ids, mask = padded(rows, self.pad)
        inputs: dict[str, Any] = {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.to(self.device),
            "use_cache": False,
        }
        with self.precision():
            return logits_at(self.model, at, columns=ids.shape[1], **inputs).logits

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.layout.embedding.weight.device  # type: ignore[return-value]


@contextmanager
def open_site(model: Any, tokenizer: Tokenizer, precision: Precision = nullcontext) -> Iterator[Site]:
    """Yield the model as a site, in eval mode and with nothing trainable. Both are restored afterwards.

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
                "this model cannot run several tokens after the key-value cache of padded rows, which editing needs. Train "
                "the facts instead (perdure learn)"
            )
        yield Site(model, tokenizer, layout, precision)
    finally:
        for module in training:
            module.training = True
        for value in trainable:
            value.requires_grad_(True)
