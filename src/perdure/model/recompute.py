"""Gradient checkpointing: the blocks of a model store only their inputs, and the backward computes the rest again."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perdure.model.head import attention_for

SWITCH, FUNCTION = "gradient_checkpointing", "_gradient_checkpointing_func"  # attributes of transformers' modules


def recompute_blocks(model: Any, precision: Callable[[], AbstractContextManager] = nullcontext) -> None:
    """Let every block of the model run again in the backward, for forwards in train mode.

    Such a forward has no cache: transformers drops the keys and values of a prefix. In eval mode nothing changes.

    Args:
        model: A model whose blocks transformers can checkpoint.
        precision: Makes the context in which forwards run; a block that runs again needs the same one.
    """
    for module in model.modules():
        if hasattr(module, SWITCH):
            setattr(module, FUNCTION, partial(_run_block, precision))
            setattr(module, SWITCH, True)


def store_activations(model: Any) -> None:
    """Let no block of the model run again: the opposite of `recompute_blocks`."""
    for module in model.modules():
        if hasattr(module, SWITCH):
            setattr(module, SWITCH, False)


def recomputes(model: Any) -> bool:
    """Return whether blocks of the model run again in the backward."""
    return any(getattr(module, SWITCH, False) for module in model.modules())


@contextmanager
def activations_stored(model: Any) -> Iterator[None]:
    """Inside, no block of the model runs again in the backward.

    A forward under other weights needs this: in the backward, the model has its own weights again.
    """
    switched = [module for module in model.modules() if getattr(module, SWITCH, False)]
    for module in switched:
        setattr(module, SWITCH, False)
    try:
        yield
    finally:
        for module in switched:
            setattr(module, SWITCH, True)


def _run_block(precision: Callable[[], AbstractContextManager], block: Callable[..., Any], *given: Any) -> Any:
    """Return the output of a block whose activations are not stored.

    Args:
        precision: Makes the context of the model's forward.
        block: The forward of the block.
        *given: Hidden states (rows, width, hidden), and further positional arguments of the block.
    """
    return checkpoint(
        block, *given, use_reentrant=False, context_fn=lambda: (nullcontext(), _Again(precision, given[0]))
    )


class _Again:
    """The context of a forward for blocks that run again, since another attention kernel would store other tensors.

    Several backwards may enter it, one after the other.

    Args:
        precision: Makes the context of the model's forward.
        hidden: Input of the block (rows, width, hidden).
    """

    def __init__(self, precision: Callable[[], AbstractContextManager], hidden: Tensor):
        self.precision, self.width, self.device = precision, hidden.shape[1], hidden.device
        self.open: list[ExitStack] = []

    def __enter__(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(self.precision())
            stack.enter_context(attention_for(self.width, self.device))
            self.open.append(stack.pop_all())

    def __exit__(self, *error: object) -> None:
        self.open.pop().close()
