"""Second moments of the inputs of linear layers, collected in forwards."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from perdure.core.errors import BadSpec
from perdure.maths.precision import without_autocast
from perdure.model.head import without_peft
from perdure.model.hooks import hooked


class InputMoments:
    """The sums of w x x^T over the inputs x of modules in the forwards of one batch, w being the weight of a token.

    Modules that read the same tensor one after the other, as the queries, keys and values of a block do, share one sum.

    Args:
        model: The model, with or without PEFT's wrapper.
        modules: Names of linear layers, without the prefix of PEFT.
        weights: Weights of the tokens in each forward of the batch, in order.

    Raises:
        BadSpec: A name is no module's.
    """

    def __init__(self, model: Any, modules: Sequence[str], weights: Sequence[Tensor]):
        known = dict(without_peft(model).named_modules())
        if unknown := [name for name in modules if name not in known]:
            raise _not_each_token(unknown[0])
        self.modules = {name: known[name] for name in modules}
        self.weights = weights
        self.sums: dict[str, Tensor] = {}
        self.owners: dict[str, str] = {}
        self._calls = dict.fromkeys(modules, 0)
        self._last: tuple[str, Tensor] | None = None

    def collecting(self) -> AbstractContextManager:
        """Return the context inside which forwards are collected."""
        hooks = [module.register_forward_pre_hook(partial(self._add, name)) for name, module in self.modules.items()]
        return hooked(*hooks)

    def checked(self) -> "InputMoments":
        """Return the sums.

        Raises:
            BadSpec: A module was not called once in each forward.
        """
        for name, calls in self._calls.items():
            if calls != len(self.weights):
                raise _not_each_token(name)
        return self

    @torch.no_grad()
    def _add(self, name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        given, call = args[0], self._calls[name]
        self._calls[name] = call + 1
        if call >= len(self.weights) or given.shape[:-1].numel() != self.weights[call].numel():
            raise _not_each_token(name)
        if self._last is not None and self._last[1] is given:
            self.owners[name] = self._last[0]
            return
        self.owners[name], self._last = name, (name, given)
        weight = self.weights[call].to(given.device).reshape(-1)
        counted = weight > 0
        x, weight = given.reshape(-1, given.shape[-1])[counted], weight[counted, None]
        with without_autocast(given.device):
            total = (x.float() * weight).T @ x.float()
        self.sums[name] = self.sums[name] + total if name in self.sums else total


def added(total: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums of two batches."""
    return {name: total[name] + value if name in total else value for name, value in more.items()}


def _not_each_token(name: str) -> BadSpec:
    return BadSpec(
        f"the inputs of {name} cannot be measured: it does not read each token once, as the experts of a mixture do; name other "
        "modules in lora_target_modules"
    )
