"""Features of texts from the first third of a causal language model: what a router tells tasks apart by.

A text is read alone, behind one opening token and without any template, so that a row of a task and the same text in a request
without a task have equal features.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

from perdure.model.batch import common_prefix, padded
from perdure.model.grouping import of_like_length
from perdure.model.head import attention_for, device_of, without_peft
from perdure.model.hooks import StopForward, hidden_of, hooked
from perdure.model.layers import decoder_blocks
from perdure.model.within_memory import in_batches

LONGEST = 256  # tokens of a text that are read; what a text is about shows at its beginning
ROWS, TOKENS = 32, 4096  # most rows and padded tokens of a forward


Ids = tuple[int, ...]
Template = tuple[Ids, Ids]  # the tokens before and behind the text of a row


def template_of(prompts: Sequence[Sequence[int]]) -> Template:
    """Return the tokens with which all prompts begin, and those with which all end; none of fewer than two prompts."""
    if len(prompts) < 2:
        return (), ()
    start = common_prefix(prompts, min(map(len, prompts)))
    rest = [prompt[start:] for prompt in prompts]
    end = common_prefix([text[::-1] for text in rest], min(map(len, rest)))
    return tuple(prompts[0][:start]), tuple(prompts[0][len(prompts[0]) - end :]) if end else ()


def own_tokens(prompt: Sequence[int], template: Template) -> Ids:
    """Return the tokens of a prompt without those of its template; all of them where nothing would be left.

    A prompt that was cut to a maximum length may not begin as the others do, and loses no token at its beginning then.
    """
    before, behind = template
    own = tuple(prompt)
    own = own[len(before) :] if own[: len(before)] == before else own
    own = own[: len(own) - len(behind)] if behind and own[-len(behind) :] == behind else own
    return own or tuple(prompt)


def default_layer(model: Any) -> int:
    """Return the number of blocks that a text runs through unless another is given: a third of all, rounded up."""
    return math.ceil(len(decoder_blocks(without_peft(model))[1]) / 3)


@torch.no_grad()
def text_features(
    model: Any,
    texts: Sequence[Sequence[int]],
    *,
    opening: int,
    pad: int = 0,
    layer: int | None = None,
    precision: Callable[[], AbstractContextManager] = nullcontext,
    on_rows: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the mean over a text's tokens of the hidden states behind a block (texts, hidden), float32, on the CPU.

    Of no text it is empty (0, 0).

    The opening token is left out of the mean: its state is an attention sink, so large that it would hide all others.

    Args:
        model: In eval mode, its adapter off.
        texts: Token ids of each text, without special tokens; of an empty text the opening token is the mean.
        opening: Token id that stands before each text, such as that of the beginning or the end of a sequence.
        pad: Token id for padding.
        layer: Number of blocks that run; a third of all unless given. The blocks above it are not computed.
        precision: Context of the forward.
        on_rows: Called with the number of texts that are done, and of all texts.

    Raises:
        BadInput: The model has no list of blocks.
        OutOfMemory: One text alone does not fit.

    Cost: a forward through `layer` blocks over at most 257 tokens a text; a text in another batch has other rounding.
    """
    layer = default_layer(model) if layer is None else layer
    block = decoder_blocks(without_peft(model))[1][layer - 1]
    rows = [(opening, *text[:LONGEST]) for text in texts]
    device, lengths = device_of(model), list(map(len, rows))

    def forward(indices: list[int]) -> Tensor:
        ids, mask = padded([rows[n] for n in indices], pad)
        with precision():
            hidden = _behind(model, block, ids.to(device), mask.to(device)).float().cpu()  # (rows, width, hidden)
        counted = mask.float()
        counted[mask.sum(-1) > 1, 0] = 0
        return (hidden * counted[..., None]).sum(1) / counted.sum(-1, keepdim=True)

    done, found = 0, dict[int, Tensor]()
    for indices, made in in_batches(of_like_length(lengths, ROWS, TOKENS), lengths, forward):
        found |= dict(zip(indices, made, strict=True))
        done += len(indices)
        if on_rows:
            on_rows(done, len(rows))
    return torch.stack([found[n] for n in range(len(rows))]) if rows else torch.zeros(0, 0)


def _behind(model: Any, block: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the output of a block; the blocks above it do not run."""
    seen: list[Tensor] = []

    def stop(_: nn.Module, __: Any, output: Any) -> None:
        seen.append(hidden_of(output))
        raise StopForward

    with hooked(block.register_forward_hook(stop)), attention_for(ids.shape[1], ids.device), suppress(StopForward):
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    return seen[0]
