"""The batching of a model: read from its structure where that is clear, else measured."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from perdure.core.errors import BadInput
from perdure.core.keyed import keyed
from perdure.model.batch import packing_of, padded
from perdure.model.batching import Batching, Decoding
from perdure.model.head import attention_mask, device_of, past_argument, prefix_cache, without_peft
from perdure.model.layers import is_mixture, is_quantized
from perdure.model.prompts import CachedPrompts

KNOWN = "perdure_batching"  # attribute of a model with its batching, which is measured once
WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "window_size")  # in configurations
CRASHES = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)  # of a cache
SHARED, TAILS, NEW = 8, (9, 2), 2  # tokens of the test rows
SMALL = 300_000_000  # a model with at most this many parameters is copied in float32
AHEAD = 16  # tokens of the two texts that show whether a model reads ahead
LEAK = 5e-4  # largest share of a change at later tokens that may appear at earlier ones; encoders of random weights have 1e-3
EXACT = 1e-4  # largest change by rounding in float32, as a share of the logits' spread
NOISE = 4  # largest change elsewhere, as a multiple of that by padding on the right, which is only rounding


def batching_of(model: Any) -> Batching:
    """Return the batching of a model; it is measured once for each model.

    Raises:
        BadInput: See `measure`.

    Cost: two forwards over 16 tokens and one over a single token; where the structure is not clear, that of `measure` too.
    """
    known: Batching | None = getattr(without_peft(model), KNOWN, None)
    if known is None:
        known = plain(model)
        if known is None:
            known = measure(model)
        else:
            refuse_reading_ahead(model)
        remember(model, known)
    return known


def remember(model: Any, batching: Batching) -> None:
    """Store the batching of a model as an attribute of the model."""
    setattr(without_peft(model), KNOWN, batching)


def plain(model: Any) -> Batching | None:
    """Return the batching of a model whose tokens attend to all earlier ones, at given positions; None for any other model.

    Cost: a forward over one token.
    """
    with _still(model):
        past = _past(model)
    layers = getattr(past, "layers", [])
    own = (
        type(past).__name__ != "DynamicCache"
    )  # the cache of a model whose code adds to it: MiniMax adds recurrent states
    whole = layers and not own and all(type(layer).__name__ == "DynamicLayer" for layer in layers)
    return Batching() if whole and _takes_positions(model) and window_of(model, past) is None else None


@torch.no_grad()
def refuse_reading_ahead(model: Any) -> None:
    """Refuse a model in which later tokens change the logits of earlier ones: an encoder, not a causal language model.

    Raises:
        BadInput: Later tokens change earlier logits.
    """
    drawn = torch.tensor(_drawn(model, AHEAD * 3 // 2), device=device_of(model))
    one, other = drawn[None, :AHEAD], torch.cat([drawn[: AHEAD // 2], drawn[AHEAD:]])[None]
    with _still(model):
        logits = [model(input_ids=ids, use_cache=False).logits.float() for ids in (one, other)]
    change = (logits[0] - logits[1]).abs().amax(-1)[0]
    if not change.isfinite().all():
        return  # NaN gives no order; the caller that reads the logits reports it
    # experts compute the tokens of all positions together, so that later tokens change the rounding of earlier ones
    rounded = is_mixture(model) and next(model.parameters()).dtype != torch.float32
    if not change[: AHEAD // 2].max() <= (0.5 if rounded else LEAK) * change[AHEAD // 2 :].max():
        raise BadInput(
            f"{named(model)} ({type(without_peft(model)).__name__}) predicts each token from those after it too: it is an "
            "encoder; perdure needs a causal (decoder-only) language model"
        )


def named(model: Any) -> str:
    """Return the name of a model in errors: its folder, where it was loaded from one."""
    folder = getattr(model.config, "_name_or_path", "")
    return f"the model in {folder}" if folder else "this model"


@torch.no_grad()
def measure(model: Any) -> Batching:
    """Return the batching of a model, by comparing the logits of each row with those of its own unpadded forward.

    Two rows of random tokens, 17 and 10 long, run alone, padded on the right, and after a shared prefix. Then they are read and
    continued in each way of `Batching.decoding`, until one way gives the logits of the rows alone.

    Raises:
        BadInput: The logits are not finite, depend on later tokens, or on padding on the right.

    Cost: some 100 to 300 tokens through the model; a small model is copied in float32, so that rounding hides no difference.
    """
    drawn = _drawn(model, 64)
    rows = [drawn[:SHARED] + drawn[start : start + size] for start, size in zip((SHARED, 32), TAILS, strict=True)]
    more = [drawn[48 : 48 + NEW + 1], drawn[56 : 56 + NEW + 1]]
    with _still(model):
        return _Probe(_exact_copy(model), rows, more).batching()


def window_of(model: Any, past: Any) -> int | None:
    """Return the smallest number of columns that a token sees, where it does not see all."""
    config = model.config.get_text_config()
    layers = getattr(past, "layers", [])
    sizes = [getattr(layer, "sliding_window", None) for layer in layers if getattr(layer, "is_sliding", False)]
    sizes += [getattr(config, name, None) for name in WINDOWS]
    if getattr(config, "attn_temperature_tuning", False):  # a model that scales queries by their column
        sizes.append(getattr(config, "floor_scale", None))
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=None)


class _Probe:
    """Test rows, their logits when each runs alone, and the comparison with their logits in a batch."""

    def __init__(self, model: Any, rows: Sequence[list[int]], more: Sequence[list[int]]):
        self.model, self.rows, self.more = model, rows, more
        self.device = device_of(model)
        whole = [row + new for row, new in zip(self.rows, more, strict=True)]
        self.alone = [self._logits([row])[0] for row in whole]
        if not all(bool(torch.isfinite(logits).all()) for logits in self.alone):
            raise BadInput(
                f"the logits of {named(model)} are not finite numbers; its weights are damaged or do not fit its code"
            )
        refuse_reading_ahead(model)
        self.spread = torch.cat(self.alone).std().item()
        self.allowed = EXACT * self.spread
        exact = next(model.parameters()).dtype == torch.float32
        self.blur = 5e-4 if exact else 1.0 if _is_quantized(model) else 0.5  # a larger difference is no rounding
        together = self._logits(whole)
        noise = max(self._distance(together[n, : len(row)], self.alone[n]) for n, row in enumerate(whole))
        if not noise <= self.blur * self.spread:
            raise BadInput(
                f"the logits of {named(model)} for a row change with the padding behind the row in a batch; perdure trains and "
                "scores in batches of padded rows, so that it cannot use this model"
            )
        self.allowed = max(self.allowed, NOISE * noise)

    def batching(self) -> Batching:
        past = self._try(lambda: _past(self.model))
        window = window_of(self.model, past)
        base = Batching(positions=_takes_positions(self.model), window=window)
        if past is None:
            return replace(base, prefix=False, decoding="whole", spans=False)
        base = replace(base, prefix=self._exact(self._behind_prefix))
        if base.prefix and base.positions and window is None:
            base = replace(
                base, packing=self._exact(lambda: self._packed(0)) and self._exact(lambda: self._packed(SHARED))
            )
        ways: list[Decoding] = ["between", "before", "padded"] if base.prefix else ["padded"]
        for way in ways:
            candidate = replace(base, decoding=way)
            if way == "between" and window is not None and not self._continues(replace(base, decoding="before"), 1):
                continue  # beyond the window rows are read as in "before"
            if self._continues(candidate, 1):
                return replace(candidate, spans=self._continues(candidate, NEW))
        return replace(base, decoding="whole", spans=False)

    def _logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        ids, mask = padded(rows, 0)
        given = {"attention_mask": mask.to(self.device)} if len(rows) > 1 else {}
        return self.model(input_ids=ids.to(self.device), use_cache=False, **given).logits.float()

    def _behind_prefix(self) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of logits of rows after a shared prefix, and alone."""
        prefix = torch.tensor([self.rows[0][:SHARED]], device=self.device)
        past = prefix_cache(self.model, prefix)
        past.batch_repeat_interleave(len(self.rows))
        ids, mask = padded([row[SHARED:] for row in self.rows], 0)
        mask = torch.cat([mask.new_ones(len(ids), SHARED), mask], dim=1)
        given = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        out = self.model(**given, **past_argument(self.model, past), use_cache=True).logits.float()
        return [(out[n, : len(row) - SHARED], self.alone[n][SHARED : len(row)]) for n, row in enumerate(self.rows)]

    def _packed(self, shared: int) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of logits of rows that stand in one line, behind a shared prefix or without one, and alone."""
        texts = [row[shared:] for row in self.rows]
        row_of = torch.tensor([n for n, text in enumerate(texts) for _ in text])
        position = torch.tensor([t for text in texts for t in range(len(text))])
        packing = packing_of([range(len(texts))], texts, row_of, position)
        given: dict[str, Any] = {
            "input_ids": torch.tensor([[token for text in texts for token in text]], device=self.device),
            "attention_mask": attention_mask(self.model, packing.sees(shared)).to(self.device),
            "position_ids": (packing.position + shared).to(self.device),
        }
        prefix = torch.tensor([self.rows[0][:shared]], device=self.device)
        past = prefix_cache(self.model, prefix) if shared else None
        out = self.model(**given, **past_argument(self.model, past), use_cache=past is not None).logits.float()[0]
        return [(out[row_of == n], self.alone[n][shared : shared + len(text)]) for n, text in enumerate(texts)]

    def _continues(self, batching: Batching, width: int) -> bool:
        """Return whether rows that are read in this way and continued by `width` tokens have the same logits as alone."""
        return self._exact(lambda: self._read(batching, width))

    def _read(self, batching: Batching, width: int) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of logits of rows that are read, reordered and continued by `width` tokens at once, and alone."""
        state = CachedPrompts(self.model, self.rows, 0, replace(batching, window=None))
        pairs = [(state.logits[n], self.alone[n][len(row) - 1]) for n, row in enumerate(self.rows)]
        order = list(reversed(range(len(self.rows))))
        state.select(torch.tensor(order, device=self.device))
        for start in range(0, NEW, width):
            ids = torch.tensor([self.more[n][start : start + width] for n in order], device=self.device)
            at = torch.tensor([(place, t) for place in range(len(order)) for t in range(width)], device=self.device).T
            logits = state.append(ids, at=at).view(len(order), width, -1)
            for place, n in enumerate(order):
                begin = len(self.rows[n]) + start
                pairs.append((logits[place], self.alone[n][begin : begin + width]))
        return pairs

    def _exact(self, run: Callable[[], list[tuple[Tensor, Tensor]]]) -> bool:
        pairs = self._try(run)
        return pairs is not None and all(self._distance(a, b) <= self.allowed for a, b in pairs)

    @staticmethod
    def _try(run: Callable[[], Any]) -> Any:
        """Return the result of `run`; None where the model's own code fails, so that this way of batching is not supported."""
        try:
            return run()
        except CRASHES:
            return None

    @staticmethod
    def _distance(a: Tensor, b: Tensor) -> float:
        return (a - b).abs().max().item()


def _exact_copy(model: Any) -> Any:
    """Return a copy in float32 of a small model in a narrower dtype; any other model unchanged."""
    if all(value.dtype == torch.float32 for value in model.parameters()):
        return model
    if (getattr(model.config, "_attn_implementation", None) or "").startswith("flash"):
        return model  # these kernels compute in 16 bits alone
    return copy.deepcopy(model).float() if is_small(model) and not _is_quantized(model) else model


def is_small(model: Any) -> bool:
    """Return whether a copy of a model in float32 takes little memory."""
    return sum(value.numel() for value in model.parameters()) <= SMALL


def _is_quantized(model: Any) -> bool:
    return any(is_quantized(module) for module in model.modules())


def _past(model: Any) -> Any:
    """Return the cache of a forward over one token; None where the model gives none."""
    with torch.no_grad():
        return prefix_cache(model, torch.zeros(1, 1, dtype=torch.long, device=device_of(model)))


def _drawn(model: Any, size: int) -> list[int]:
    """Return random tokens, always the same ones."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    low = vocabulary // 4  # most vocabularies have special tokens below it
    tokens: list[int] = keyed("batching").integers(low, max(2 * low, low + 1), size=size).tolist()
    return tokens


def _takes_positions(model: Any) -> bool:
    return "position_ids" in signature(without_peft(model).forward).parameters


@contextmanager
def _still(model: Any) -> Iterator[None]:
    """Eval mode inside; every module's mode is restored afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
