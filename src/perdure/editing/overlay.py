"""Low-rank updates added to a model by hooks: what is tried is never written."""

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
"""Returns the context in which the model has the update for the facts of these numbers, one for each row of a forward."""


def no_overlay(_: Sequence[int]) -> AbstractContextManager:
    """Return a context that adds nothing."""
    return nullcontext()


@contextmanager
def overlaid(site: Site, updates: Mapping[str, Factors]) -> Iterator[None]:
    """Add low-rank updates to what the named layers return, in float32 as an adapter does."""
    with overlaid_tensors(site, {name: (_float(f.left, site), _float(f.right.T, site)) for name, f in updates.items()}):
        yield


@contextmanager
def overlaid_tensors(site: Site, updates: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Add x down^T up to what the named layers return for x; gradients flow into down (N, in) and up (N, out), float32."""
    with ExitStack() as stack:
        for name, (down, up) in updates.items():
            stack.enter_context(_adding(site, name, lambda x, down=down, up=up: (x @ down.T) @ up))  # type: ignore[misc]
        yield


def one_each(site: Site, updates: Mapping[str, Factors]) -> Overlay:
    """Return an overlay that adds to each row the update of one fact, so that many single edits are tried in one forward.

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
