"""Hooks on modules that are removed when a block ends, and access to the hidden states in a module's output."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


class StopForward(Exception):
    """Raised by a hook to end the forward, so that the modules above it do not run."""


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Remove hooks when the block ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hidden_of(output: Any) -> Tensor:
    """Return the hidden states in the output of a module: a tensor, or a tuple that begins with it."""
    return output[0] if isinstance(output, tuple) else output


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """Return the output of a module with other hidden states."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
