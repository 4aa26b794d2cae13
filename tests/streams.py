"""A stream that contradicts itself, on the tiny model: the same questions, first with one answer, then with another."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perdure.bridges.runtime import Runtime
from perdure.core.recipe import Recipe, build_recipe
from perdure.core.rows import Row
from perdure.core.seams import Draw, DrawContext
from perdure.data.encode import Encoded, encode
from perdure.memory.pool import Pool
from perdure.methods.registry import all_methods
from perdure.train import loop
from perdure.train.checkpoint import Keeper
from perdure.train.learning import Learning, Record

Tensors = dict[str, torch.Tensor]
SETTINGS = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 2e-2, "logging_steps": 1}
ANYWHERE = DrawContext(update=0, total=8, new_rows=8, pools={})  # in which a method is asked what it would draw


@dataclass
class Learned:
    """What a learn left: weights, states before and after it settled, and its record."""

    weights: Tensors
    open_state: dict[str, Tensors]
    record: Record


class Stream:
    """The model after its first task, about to learn a second one that contradicts it.

    Args:
        folder: The tiny model.
    """

    def __init__(self, folder: Path):
        self.runtime = Runtime(folder, "float32", "cpu")
        self.old, self.new = self.encoded("yes", 8), self.encoded("no", 16)
        self.slots: dict[str, Tensors] = {}
        plain = self.learning({}, rows=self.old, num_train_epochs=8)
        loop.train(plain)
        self.slots = {"skill": self.runtime.skill()}
        self.teachers = plain.top_k(self.old, 8)

    def encoded(self, answer: str, n: int) -> list[Encoded]:
        """Return `n` rows; the questions are the same whatever the answer."""
        rows = [Row(f"Parcel {'very ' * (i % 3)}{i}?", f" {answer} {i % 2}") for i in range(n)]
        return [encode(row, self.runtime.base.tokenizer, 64) for row in rows]

    def pools(self, names: tuple[str, ...]) -> dict[str, Pool]:
        """Return filled pools: the old rows, with what the model said about them when it had learned them."""
        if not names:
            return {}
        keys = [str(i) for i in range(len(self.old))]
        taught = dict(zip(keys, self.teachers, strict=True))
        labels = [str(i % 2) for i in range(len(self.old))]
        columns = {name: taught for method in all_methods().values() for name in wish(method()).columns}
        return {name: Pool(keys, self.old, labels, ["old"] * len(keys), columns) for name in names}

    def learning(
        self,
        methods: Mapping[str, Any] | Recipe,
        *,
        pools: tuple[str, ...] = (),
        rows: list[Encoded] | None = None,
        **more: Any,
    ) -> Learning:
        """Return a learn of the second task that has not begun. Laying the start anew undoes the learn before.

        Args:
            methods: Fields by method name, or a whole recipe.
            pools: Names of the pools that are filled.
            rows: Other rows than the second task's.
            **more: Settings, or `registry` and `validation`.
        """
        registry, validation = more.pop("registry", all_methods()), more.pop("validation", ())
        spec = {**SETTINGS, **more, "methods": methods}
        recipe = methods if isinstance(methods, Recipe) else build_recipe(spec, registry)
        self.runtime.lay(self.slots)
        params = self.runtime.start_adapter(recipe.settings, 0, "new")
        return Learning(
            self.runtime.model,
            params,
            recipe,
            self.new if rows is None else rows,
            pools=self.pools(pools),
            validation=validation,
            task="new",
            pad=self.runtime.base.pad,
        )

    def train(self, learning: Learning, keeper: Keeper | None = None) -> Learned:
        """Run `learning` to its end on the reference loop."""
        settle, kept = learning.settle, {}

        def watched() -> None:
            kept.update({name: dict(state) for name, state in learning.state.items()})
            settle()

        learning.settle = watched  # type: ignore[method-assign]
        loop.train(learning, keeper)
        return Learned(weights(learning), kept, learning.record)


def wish(method: Any) -> Draw:
    """Return what `method` draws; of size 0, from no pool, where it draws nothing."""
    return (method.draw(ANYWHERE, {}) if "draw" in method.seams else None) or Draw(0, pool="")


def weights(learning: Learning) -> Tensors:
    """Return copies of the trainable parameters."""
    return {name: value.detach().clone() for name, value in learning.params.items()}


def same(a: Tensors, b: Tensors) -> bool:
    """Return whether two sets of tensors are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def close(a: Tensors, b: Tensors, rtol: float = 1e-3, atol: float = 1e-4) -> None:
    """Assert that two sets of tensors are equal up to rounding."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=rtol, atol=atol)


def apart(a: Tensors, b: Tensors) -> float:
    """Return ||a - b|| / ||b||, over all tensors together; about 1e-6 where only the order of sums differs."""
    gap = sum((a[name] - value).square().sum().item() for name, value in b.items())
    return (gap / sum(value.square().sum().item() for value in b.values())) ** 0.5
