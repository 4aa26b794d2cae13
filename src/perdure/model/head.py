"""The forward that training, scoring and editing share: logits at wanted positions only, in the fastest attention kernel."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORT_ON_CPU = (
    256  # up to this many tokens plain attention is faster than the fused CPU kernel (measured: 12% per step at 30)
)


class HeadOutput(NamedTuple):
    """The output of a forward at some positions.

    Args:
        logits: (tokens, vocab), in float32 unless the caller takes them as the model returns them.
        hidden: The states (tokens, hidden) that the logits were made from.
        past: Keys and values of all tokens up to here; None where the model has no cache.
    """

    logits: Tensor
    hidden: Tensor
    past: Any


def logits_at(
    model: Any,
    at: Tensor | None,
    *,
    columns: int,
    weights: Mapping[str, Tensor] | None = None,
    past: Any = None,
    widen: bool = True,
    **given: Any,
) -> HeadOutput:
    """Run the model and return its logits at some positions.

    Args:
        model: A causal language model.
        at: Row and position (2, tokens) in the input; None for no position.
        columns: Number of tokens that attention reads: those of the input and those before it.
        weights: Values that replace the model's parameters of these names.
        past: Keys and values of the tokens before the input; those of the input are appended.
        widen: Return logits in float32; otherwise in the dtype of the forward, which takes half the memory under autocast.
        **given: The arguments of the forward; those that are None are left out.
    """
    with attention_for(columns, device_of(model)), only_at(model, at) as hidden:
        out = call(model, weights, {**given, **past_argument(model, past)})
    logits = out.logits[0]
    return HeadOutput(logits.float() if widen else logits, hidden[0], past_in(out))


def prefix_cache(
    model: Any, ids: Tensor, weights: Mapping[str, Tensor] | None = None, past: Any = None, **given: Any
) -> Any:
    """Return the keys and values of a prefix, run without the head; None where the model has no cache.

    All prefixes run through this function: those that all rows of a batch share, and those of single rows.

    Args:
        model: A causal language model.
        ids: Token ids (rows, width). All are real tokens unless `attention_mask` is given.
        weights: As for `logits_at`.
        past: A cache to fill; None lets the model make one.
        **given: More arguments of the forward; those that are None are left out.
    """
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": True, **given}
    with only_at(model, None):
        return past_in(call(model, weights, {**given, **past_argument(model, past)}))


def call(model: Any, weights: Mapping[str, Tensor] | None, given: Mapping[str, Any]) -> Any:
    """Return the output of the model with `weights` instead of its parameters of these names."""
    own = {name: value for name, value in given.items() if value is not None}
    return model(**own) if weights is None else torch.func.functional_call(model, dict(weights), (), own)


def without_peft(model: Any) -> Any:
    """Return the model without PEFT around it."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def past_argument(model: Any, past: Any) -> dict[str, Any]:
    """Return the argument of the model's forward that gives it a cache; no argument where `past` is None.

    transformers calls it `past_key_values` up to 5.23, and `cache` from 5.24 on.
    """
    bare: nn.Module = without_peft(model)
    return {} if past is None else {_past_name(type(bare).forward): past}


def past_in(output: object) -> Any:
    """Return the cache in the output of a forward; None where the model gives none."""
    names = [field.name for field in fields(output)] if is_dataclass(output) else []
    return next((getattr(output, name) for name in ("cache", "past_key_values") if name in names), None)


@cache
def _past_name(forward: Callable[..., Any]) -> str:
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


def device_of(model: Any) -> torch.device:
    """Return the device of the model's first parameter."""
    return next(model.parameters()).device


def attention_for(tokens: int, device: torch.device) -> AbstractContextManager:
    """Return the context in which attention over `tokens` keys is fastest on `device`."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" and tokens <= SHORT_ON_CPU else nullcontext()


def attention_mask(model: Any, sees: Tensor) -> Tensor:
    """Return which tokens see which (rows, 1, width, columns) in the form that the model's attention takes."""
    if getattr(model.config.get_text_config(), "_attn_implementation", None) != "eager":
        return sees
    dtype = next(value.dtype for value in model.parameters() if value.is_floating_point())
    return torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)


@contextmanager
def only_at(model: Any, at: Tensor | None) -> Iterator[list[Tensor]]:
    """Let the model's head see the hidden states at `at` (row, position) only; with None, no position at all.

    The head's soft-caps and scales still apply. Inside, the model's logits have shape (1, tokens, vocab), and the list
    that is yielded has the hidden states (tokens, hidden) of the last forward.
    """
    seen: list[Tensor] = []

    def gather(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0]  # (rows, width, hidden)
        wanted = (
            hidden[:, :0].reshape(1, 0, hidden.shape[-1])
            if at is None
            else hidden[tuple(at.to(hidden.device))].unsqueeze(0)
        )
        seen[:] = [wanted[0]]
        return (wanted, *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield seen
    finally:
        handle.remove()
