"""Low-rank updates that hooks add to a model's outputs, to try them without changing a weight."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from perdure.editing.site import Site
from perdure.editing.solve import Factors
from perdure.maths.precision import without_autocast
from perdure.model.hooks import hidden_of, hooked, with_hidden

Overlay = Callable[[Sequence[int]], AbstractContextManager]
"""Takes the number of a fact for each row of a forward; returns the context in which each row has the update of its fact."""


def no_overlay(_: Sequence[int]) -> AbstractContextManager:
    """Return a context that adds nothing."""
    return nullcontext()


@contextmanager
def overlaid(site: Site, updates: Mapping[str, Factors]) -> Iterator[None]:
    """Add low-rank updates to the outputs of the named layers, in float32 as an adapter does."""
    with overlaid_tensors(site, {name: (_float(f.left, site), _float(f.right.T, site)) for name, f in updates.items()}):
        yield


@contextmanager
def overlaid_tensors(site: Site, updates: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Add x down^T up to each named layer's output for input x; gradients flow into down (N, in) and up (N, out), float32."""
    with ExitStack() as stack:
        for name, (down, up) in updates.items():
            stack.enter_context(_adding(site, name, lambda x, down=down, up=up: (x @ down.T) @ up))  # type: ignore[misc]
        yield


def one_each(site: Site, updates: Mapping[str, Factors]) -> Overlay:
    """Return an overlay that adds the update of one fact to each row, so that one forward tries many single edits.

    Args:
        site: The model.
        updates: By module; row i of `left` and column i of `right` are fact i's own update.
    """

    @contextmanager
    def over(facts: Sequence[int]) -> Iterator[None]:
        mine = torch.tensor(list(facts), device=site.device)
        with ExitStack() as stack:
            for name, factors in updates.items():
                down, up = _float(factors.left, site)[mine, None], _float(factors.right.T, site)[mine, None]

                def add(x: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
                    return (x * down).sum(-1, keepdim=True) * up

                stack.enter_context(_adding(site, name, add))
            yield

    return over


@contextmanager
def _adding(site: Site, name: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def add(_: nn.Module, args: tuple, output: Any) -> Any:
        hidden = hidden_of(output)
        with without_autocast(site.device):
            return with_hidden(output, hidden + change(args[0].float()).to(hidden.dtype))

    with hooked(site.layout.module(site.model, name).register_forward_hook(add)):
        yield


def _float(value: Tensor, site: Site) -> Tensor:
    return value.float().to(site.device)
