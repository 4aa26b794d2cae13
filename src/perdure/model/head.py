"""The forward that training, scoring and editing share: logits at wanted positions only, in the fastest attention kernel."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORT_ON_CPU = (
    256  # tokens up to which plain attention beats the fused CPU kernel (measured: a step is 12% faster at 30)
)


class HeadOutput(NamedTuple):
    """The output of a forward at some positions.

    Args:
        logits: (tokens, vocab) in float32.
        hidden: The states (tokens, hidden) that the logits were made from.
        past: Keys and values of all tokens up to here; None where the model has no cache.
    """

    logits: Tensor
    hidden: Tensor
    past: Any


def logits_at(
    model: Any, at: Tensor | None, *, columns: int, weights: Mapping[str, Tensor] | None = None, **given: Any
) -> HeadOutput:
    """Run the model and return its logits at some positions.

    Args:
        model: A causal language model.
        at: Row and position (2, tokens) in the input; None for no position.
        columns: Tokens that attention reads: those of the input and those in front of it.
        weights: Values that take the place of the model's parameters of these names.
        **given: The arguments of the forward; those that are None are left out.
    """
    with attention_for(columns, device_of(model)), only_at(model, at) as hidden:
        out = call(model, weights, given)
    return HeadOutput(out.logits[0].float(), hidden[0], getattr(out, "past_key_values", None))


def prefix_cache(model: Any, weights: Mapping[str, Tensor] | None = None, **given: Any) -> Any:
    """Return the keys and values of a prefix, run without the head; None where the model has no cache.

    All prefixes run here: one that all rows of a batch share, and one for each row. What precedes every text, such as a
    trained opening, is given as `past_key_values`.

    Args:
        model: A causal language model.
        weights: As for `logits_at`.
        **given: The arguments of the forward; those that are None are left out.
    """
    with only_at(model, None):
        return getattr(call(model, weights, {**given, "use_cache": True}), "past_key_values", None)


def call(model: Any, weights: Mapping[str, Tensor] | None, given: Mapping[str, Any]) -> Any:
    """Return the output of the model with `weights` in the place of its parameters of these names."""
    own = {name: value for name, value in given.items() if value is not None}
    return model(**own) if weights is None else torch.func.functional_call(model, dict(weights), (), own)


def device_of(model: Any) -> torch.device:
    """Return the device of the model's first parameter."""
    return next(model.parameters()).device


def attention_for(tokens: int, device: torch.device) -> AbstractContextManager:
    """Return the context in which attention over `tokens` keys is fastest on `device`."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" and tokens <= SHORT_ON_CPU else nullcontext()


@contextmanager
def only_at(model: Any, at: Tensor | None) -> Iterator[list[Tensor]]:
    """Let the model's head see the hidden states at `at` (row, position) only; with None, no position at all.

    The head's own soft-caps and scales stay in force. Inside, the model's logits have shape (1, tokens, vocab), and the list
    that is yielded holds the hidden states (tokens, hidden) of the last forward.
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
