"""Log-likelihoods of tokens, without a softmax over the vocabulary of all of them at once; and of whole texts, in windows."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.model.batch import padded
from perdure.model.grouping import of_like_length
from perdure.model.head import device_of, logits_at
from perdure.model.within_memory import in_batches

PIECE = 32  # tokens whose log-softmax is in memory at once: small enough for the cache of a processor
WINDOW = 1024  # tokens of the longest text that is read at once
ROWS, MOST = 16, 2048  # texts and padded tokens of a batch; fixed, so that two states have the same padding


def token_log_likelihoods(logits: Tensor, targets: Tensor, at: Tensor | None = None) -> Tensor:
    """Return log p of each target token in nats (tokens,), to the bit that of a log-softmax over all logits at once.

    Args:
        logits: Logits (places, vocab) in float32.
        targets: Token ids (tokens,).
        at: Place of each target (tokens,), ascending; None where each place has one.
    """
    places = torch.arange(len(targets), device=targets.device) if at is None else at
    found = torch.empty(len(targets), dtype=logits.dtype, device=logits.device)
    for start in range(0, len(logits), PIECE):
        mine = (places >= start) & (places < start + PIECE)
        found[mine] = logits[start : start + PIECE].log_softmax(-1)[places[mine] - start, targets[mine]]
    return found


@dataclass(frozen=True)
class Text:
    """A text whose likelihood is measured.

    Args:
        ids: Token ids of the text, with what precedes it.
        first: Position of the first token that is counted, at least 1.
    """

    ids: Sequence[int]
    first: int


@dataclass(frozen=True)
class _Window:
    """A part of a text that is read at once.

    Args:
        text: Number of the text.
        ids: Its tokens.
        first: Position in the window of the first token that is counted.
    """

    text: int
    ids: Sequence[int]
    first: int


def windows_of(length: int, window: int) -> list[tuple[int, int, int]]:
    """Return start, end and first counted position of the windows of a text; every token but the first is counted once.

    The first window counts all its tokens, each later one those of its second half: they have half a window before them.

    Args:
        length: Tokens of the text.
        window: Most tokens of a window, at least 2.
    """
    parts, end = [(0, min(length, window), 1)], min(length, window)
    while end < length:
        new = min(end + window - window // 2, length)
        parts.append((max(new - window, 0), new, end))
        end = new
    return parts


@torch.no_grad()
def text_nats(
    model: Any,
    texts: Sequence[Text],
    *,
    pad: int,
    positions: int | None = None,
    precision: Callable[[], AbstractContextManager] = nullcontext,
    tick: Callable[[int], None] | None = None,
    on_smaller: Callable[[int], None] | None = None,
) -> list[tuple[float, int]]:
    """Return -log p of the counted tokens of each text in nats, and their number.

    A text longer than `WINDOW`, or than the model has positions for, is read in windows, see `windows_of`.

    Args:
        model: A causal language model in eval mode.
        texts: The texts, each with a token to count.
        pad: Token id for padding.
        positions: Most tokens that the model takes; None where there is no limit.
        precision: Context of the forwards.
        tick: Called with the number of texts finished.
        on_smaller: Called with the windows that a batch has from here on, where memory ran out.

    Raises:
        OutOfMemory: One window alone does not fit.
    """
    size = min(WINDOW, positions or WINDOW)
    parts = [
        _Window(number, text.ids[start:end], max(counted, text.first) - start)
        for number, text in enumerate(texts)
        for start, end, counted in windows_of(len(text.ids), size)
        if end > text.first
    ]
    sums, counts = [0.0] * len(texts), [0] * len(texts)
    left = Counter(part.text for part in parts)
    device = device_of(model)

    def run(members: list[int]) -> list[float]:
        live = [parts[i] for i in members]
        ids, mask = padded([part.ids for part in live], pad)
        at = torch.tensor([(n, t - 1) for n, part in enumerate(live) for t in range(part.first, len(part.ids))]).T
        target = torch.tensor([part.ids[t] for part in live for t in range(part.first, len(part.ids))])
        with precision():
            out = logits_at(
                model,
                at,
                columns=ids.shape[1],
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                use_cache=False,
            )
        found = token_log_likelihoods(out.logits, target.to(device)).cpu().double()
        return [-float(found[at[0] == n].sum()) for n in range(len(live))]

    lengths = [len(part.ids) for part in parts]
    batches = of_like_length(lengths, ROWS, MOST)
    for members, nats in in_batches(batches, lengths, run, on_smaller):
        for i, value in zip(members, nats, strict=True):
            part = parts[i]
            sums[part.text] += value
            counts[part.text] += len(part.ids) - part.first
            left[part.text] -= 1
        if tick:
            tick(sum(not waiting for waiting in left.values()))
    return list(zip(sums, counts, strict=True))
