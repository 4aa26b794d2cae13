"""A stream that contradicts itself, on the tiny model: the same questions, first with one answer, then with another."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from perdure.bridges.runtime import Runtime
from perdure.core.plan import Bare
from perdure.core.recipe import Recipe, build_recipe
from perdure.core.rows import Row
from perdure.core.seams import Draw, DrawContext
from perdure.data.encode import Encoded, encode
from perdure.memory.pool import Pool
from perdure.methods.registry import all_methods
from perdure.model.features import Example, Features
from perdure.model.forward import Tokens
from perdure.train import loop
from perdure.train.adapter_start import effects_of
from perdure.train.checkpoint import Keeper
from perdure.train.effects import TrainingLog
from perdure.train.learner import Learner
from perdure.train.loaded_model import ModelBefore
from perdure.train.task import TaskInputs, Trainable
from perdure.train.update import Update

Tensors = dict[str, torch.Tensor]
SETTINGS = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 2e-2, "logging_steps": 1}
ANYWHERE = DrawContext(update=0, total=8, new_rows=8, pools={})  # in which a method is asked what it would draw


@dataclass
class Learned:
    """What a learn left: weights, states before and after it settled, and its record."""

    weights: Tensors
    open_state: dict[str, Tensors]
    record: TrainingLog


class Stream:
    """The model after its first task, about to learn a second one that contradicts it.

    Args:
        folder: The tiny model.
        dtype: What its frozen weights are held in.
    """

    own: Mapping[str, torch.Tensor] = MappingProxyType({})  # content of the slot that trains, at head
    effects: Mapping[str, float] = MappingProxyType({})  # numbers that describe the start of the plan

    def __init__(self, folder: Path, dtype: str = "float32"):
        self.runtime = Runtime(folder, dtype, "cpu")
        self.old, self.new = self.encoded("yes", 8), self.encoded("no", 16)
        self.held_out = self.encoded("no", 20)[16:]
        self.slots: dict[str, Tensors] = {}
        plain = self.learner({}, rows=self.old, num_train_epochs=8)
        loop.train(plain)
        self.slots = {"skill": self.runtime.skill()}
        self.teachers = plain.inference.top_k(self.old, 8)

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
        columns = {column.name: taught for m in all_methods().values() for column in m().columns if column.of != "new"}
        return {name: Pool(keys, self.old, labels, ["old"] * len(keys), columns) for name in names}

    def columns(self, trainable: Trainable, recipe: Recipe, rows: list[Any]) -> dict[str, Any]:
        """Return the columns of new rows that a workspace computes; the model after its first task stands for the base."""
        wanted = [column for column in recipe.columns("new") if column.teacher == "base"]
        return {c.name: trainable.inference().top_k(rows, min(c.top_k, 3), labels=c.labels) for c in wanted}

    def learner(
        self,
        methods: Mapping[str, Any] | Recipe,
        *,
        pools: tuple[str, ...] = (),
        rows: list[Any] | None = None,
        state: Mapping[str, Tensors] | None = None,
        **more: Any,
    ) -> Learner:
        """Return a learner of the second task that has not begun; it starts where the first one ended, whatever came since.

        Args:
            methods: Fields by method name, or a whole recipe.
            pools: Names of the pools that are filled.
            rows: Other rows than the second task's.
            state: What the methods kept of the first task.
            **more: Settings, or `registry`, `validation` and `task`.

        With nothing remembered it is the first task as far as methods can tell.
        """
        registry, validation = more.pop("registry", all_methods()), more.pop("validation", self.held_out)
        task = more.pop("task", "new")
        spec = {**SETTINGS, **more, "methods": methods}
        recipe = methods if isinstance(methods, Recipe) else build_recipe(spec, registry)
        rows, filled = self.new if rows is None else rows, self.pools(pools)
        trainable, beneath = self.begun(recipe, task, state or {}, rows, filled)
        inputs = TaskInputs(
            task,
            rows,
            validation=validation,
            pools=filled,
            columns=self.columns(trainable, recipe, rows),
            state=state or {},
            first=not pools,
            beneath=beneath,
            own=self.own,
            effects=self.effects,
        )
        return Learner(trainable, recipe, inputs)

    def begun(
        self,
        recipe: Recipe,
        task: str,
        state: Mapping[str, dict[str, Tensors]],
        rows: list[Any],
        pools: Mapping[str, Pool],
    ) -> tuple[Trainable, dict[str, Tensors]]:
        """Return the model as the first task left it, with what trains now, and what lies frozen under that."""
        self.plan = recipe.adapter_plan(self.bare(recipe, task, rows, pools), state)
        start = cache(self.plan.start) if self.plan.start else None
        params = self.runtime.begin(replace(self.plan, start=start), self.slots, recipe.settings, 0, "new")
        self.own, self.effects = self.slots.get(self.plan.slot, {}), effects_of(start() if start else {})
        recompute = recipe.settings.gradient_checkpointing
        trainable = self.runtime.trainable(params, gradient_checkpointing=recompute)
        return trainable, {name: self.slots[name] for name in self.plan.beneath}

    def bare(
        self, recipe: Recipe, task: str = "new", rows: Any = None, pools: Mapping[str, Pool] | None = None
    ) -> Bare:
        """Return what a plan of a task sees."""
        sets = {"new": self.new if rows is None else rows} | {name: pool.rows for name, pool in (pools or {}).items()}
        model = ModelBefore(lambda: self.runtime.trainable({}), sets, 0, task)
        return Bare(task, 0, recipe.settings, self.runtime.shapes(recipe.settings), self.slots, model)

    def kept(self, methods: Mapping[str, Any], **more: Any) -> dict[str, Tensors]:
        """Return what the methods keep when they learn the first task from the start."""
        slots, self.slots = self.slots, {}
        try:
            made = self.learner(methods, rows=self.old, num_train_epochs=8, task="old", **more)
            loop.train(made)
        finally:
            self.slots = slots
        return {name: dict(state) for name, state in made.measured_state.items()}

    def train(self, learner: Learner, keeper: Keeper | None = None) -> Learned:
        """Run `learner` to its end on the reference loop."""
        settle, kept = learner.settle, {}

        def watched() -> None:
            kept.update({name: dict(state) for name, state in learner.state.items()})
            settle()

        learner.settle = watched  # type: ignore[method-assign]
        loop.train(learner, keeper)
        return Learned(weights(learner), kept, learner.record)


class FeatureStream(Stream):
    """The same, of points in the plane and a small network: a hundred times faster, for what is tried on every pair."""

    def __init__(self) -> None:
        points = torch.randn(28, 6, generator=torch.Generator().manual_seed(0))
        made = [Example(point, int(point[0] > 0)) for point in points]
        self.old = made[:8]
        self.new, self.held_out = (
            [Example(r.features, 3 - r.label) for r in part] for part in (made[:16], made[16:20])
        )
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        self.start: Tensors = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.slots = {}
        plain = self.learner({}, rows=self.old, num_train_epochs=8)
        loop.train(plain)
        self.slots = {"skill": weights(plain)}
        self.teachers = plain.inference.top_k(self.old, 3)

    def begun(
        self,
        recipe: Recipe,
        task: str,
        state: Mapping[str, dict[str, Tensors]],
        rows: list[Any],
        pools: Mapping[str, Pool],
    ) -> tuple[Trainable, dict[str, Tensors]]:
        """Return the network as the first task left it; every weight of it trains."""
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(self.slots.get("skill", self.start)[name])
        self.model.zero_grad()
        return Trainable(self.model, dict(self.model.named_parameters()), Features()), {}


def run(learner: Learner, n: int) -> float:
    """Run update `n` without an optimizer step; return its loss."""
    return finished(learner, n)[1]


def finished(learner: Learner, n: int) -> tuple[Update, float]:
    """Run update `n` without an optimizer step; return it and its loss."""
    update = learner.update(n)
    loss = update.gradients()
    update.finish()
    return update, loss


def label_logits(model: Any, batch: Any) -> torch.Tensor:
    """Return the logits at the label positions of a batch of tokens."""
    return Tokens().forward(model, batch).logits


def wish(method: Any) -> Draw:
    """Return what `method` draws; of size 0, from no pool, where it draws nothing."""
    wanted = (method.draw(ANYWHERE, {}) if "draw" in method.seams else None) or Draw(0)
    return max(wanted.values(), key=lambda draw: draw.size) if isinstance(wanted, Mapping) else wanted


def weights(learner: Learner) -> Tensors:
    """Return copies of the trainable parameters."""
    return {name: value.detach().clone() for name, value in learner.params.items()}


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
