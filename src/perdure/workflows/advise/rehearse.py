"""A recipe tried on a network of a few weights, to count what it costs before anything real runs.

What a method does is its own business, and a number it declared would go stale. So its cost is counted: the `Learner` that
trains language models learns two tiny tasks. The rows that pass through the network, and the state of the methods, are counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from perdure.core.plan import Bare, SecondMoment
from perdure.core.recipe import Recipe
from perdure.core.seams import State
from perdure.maths.low_rank import Patch, to_tensors
from perdure.memory.pool import Pool
from perdure.model.features import Example, Features
from perdure.model.forward import OnRows
from perdure.train.inference import Inference
from perdure.train.learner import Learner
from perdure.train.optimizer import make_optimizer
from perdure.train.task import TaskInputs, Trainable
from perdure.workflows.advise.explanation import Cost, StateBytes

ROWS, UPDATES = 512, 4  # new rows, and updates at least: enough for every method to reach its own size
KEPT = 32  # rows of each memory pool
CLASSES = 4
RANK, WIDTH = 4, 32  # of the adapter whose start is computed


def rehearse(recipe: Recipe) -> Cost:
    """Return what `recipe` costs, counted over two tiny tasks with filled memory. Takes well under a second.

    Weights are float32 and hardly move, so what methods decide from losses stands at its start.
    """
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        first = _learner(model, recipe, first=True)
        _counted(first)
        cost = _counted(_learner(model, recipe, state=first.measured_state))
        forward, features = _read_to_start(recipe, first, len(first.inputs.rows))
        return replace(cost, before=cost.before + forward, features_before=cost.features_before + features)


@contextmanager
def _one_thread() -> Iterator[None]:
    """On a busy machine, threads that share a handful of numbers wait for each other far longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _learner(
    model: nn.Module, recipe: Recipe, first: bool = False, state: Mapping[str, State] | None = None
) -> Learner:
    settings = recipe.settings
    rows = max(ROWS, UPDATES * settings.per_device_train_batch_size * settings.gradient_accumulation_steps)
    change: dict[str, float | str] = {
        "num_train_epochs": 1,
        "max_steps": -1,
        "learning_rate": 1e-6,
        "logging_steps": 10**9,
    }
    change |= {"optim": "adamw_torch", "optim_args": ""}  # the cost of the methods is counted
    small = Recipe(recipe.name, settings.model_copy(update=change), recipe.methods)
    pools = {method.pool for method in recipe.drawing if method.pool}
    new, inference = _examples(rows), Inference(model, Features())
    wanted = [column for column in recipe.columns("new") if column.teacher != "start"]
    inputs = TaskInputs(
        "first" if first else "second",
        new,
        pools={} if first else {name: _pool(name, small, inference) for name in pools},
        validation=_examples(KEPT),
        columns={
            column.name: inference.top_k(new, min(column.top_k, CLASSES), labels=column.labels) for column in wanted
        },
        state=state or {},
        first=first,
    )
    return Learner(_Counting(model, dict(model.named_parameters()), _Rows()), small, inputs)


class _Rows(Features):
    """Counts the rows whose features are read, in `read`."""

    read = 0

    def features(
        self, model: Any, rows: Sequence[Example], layer: int | None, on_rows: OnRows | None = None
    ) -> tuple[Tensor, list[str | None]]:
        """Return the features of the rows, and count these."""
        self.read += len(rows)
        return super().features(model, rows, layer, on_rows)


class _Reading(Inference):
    """Counts the rows whose inputs a method measures, in `measured`; the network has no module with an adapter."""

    measured = 0

    def moments(
        self, rows: Sequence[Any], modules: Sequence[str], *, own: bool = True, batch_size: int = 32
    ) -> dict[str, SecondMoment]:
        """Return nothing, as there is no module to measure, and count the rows."""
        self.measured += len(rows)
        return {}


@dataclass(frozen=True)
class _Counting(Trainable):
    """A network whose forwards for measures are counted."""

    def inference(self, on_rows: Callable[[int, int], None] | None = None) -> _Reading:
        """Return the network for inference."""
        return _Reading(self.model, self.reader, self.precision, on_rows)


class _Loaded:
    """`core.plan.LoadedModel` of random weights and rows, which counts what the start of an adapter reads."""

    def __init__(self, rows: Mapping[str, int]):
        self.rows, self.forward, self.read = rows, 0, 0

    def weight(self, module: str) -> Tensor:
        """Return a random weight."""
        return torch.randn(WIDTH, WIDTH)

    def moments(
        self, rows: str, modules: Sequence[str], tokens: Literal["own", "all"] = "own", size: int | None = None
    ) -> dict[str, SecondMoment]:
        """Return random moments, of one input for all modules; one forward a row is counted."""
        n = self._count(rows, size)
        self.forward += n
        inputs = torch.randn(4 * WIDTH, WIDTH)
        moment = SecondMoment(inputs.mT @ inputs / len(inputs), float(n))
        return dict.fromkeys(modules, moment) if n else {}

    def features(self, rows: str, layer: int | None = None, size: int | None = None) -> tuple[Tensor, list[str | None]]:
        """Return random features and labels; one reading a row is counted."""
        n = self._count(rows, size)
        self.read += n
        return torch.randn(n, 6), [str(i % CLASSES) for i in range(n)]

    def _count(self, rows: str, size: int | None) -> int:
        n = self.rows.get(rows, 0)
        return n if size is None else min(size, n)


def _read_to_start(recipe: Recipe, first: Learner, rows: int) -> tuple[float, float]:
    """Return rows run forward, and rows whose features are read, for the start of the second adapter, in multiples of `rows`."""
    if recipe.settings.train != "lora":
        return 0.0, 0.0
    pools = {method.pool: KEPT for method in recipe.drawing if method.pool}
    settings, loaded = recipe.settings.model_copy(update={"lora_r": RANK}), _Loaded({"new": rows, **pools})
    shapes = {"layer": (WIDTH, WIDTH)}
    before = recipe.adapter_plan(Bare("first", 0, settings, shapes, {}, loaded), {})
    adapter = Patch(torch.randn(RANK, WIDTH), torch.zeros(WIDTH, RANK), settings.lora_scale)
    slots = {before.slot: to_tensors({"layer": adapter}), **first.measured_slots}
    plan = recipe.adapter_plan(Bare("second", 0, settings, shapes, slots, loaded), {})
    if plan.start:
        plan.start()
    return loaded.forward / rows, loaded.read / rows


def _examples(n: int) -> list[Example]:
    return [Example(point, i % CLASSES) for i, point in enumerate(torch.randn(n, 6))]


def _pool(name: str, recipe: Recipe, inference: Inference) -> Pool:
    rows, keys = _examples(KEPT), [str(i) for i in range(KEPT)]
    columns = {
        column.name: dict(
            zip(keys, inference.top_k(rows, min(column.top_k, CLASSES), labels=column.labels), strict=True)
        )
        for column in recipe.columns(name)
    }
    return Pool(keys, rows, [str(row.label) for row in rows], ["first"] * KEPT, columns)  # type: ignore[arg-type]


def _counted(made: Learner) -> Cost:
    """Learn the task as a host does and return what it took; the first and last update, which are measured, are not counted."""
    counts: dict[str, Counter[str]] = {phase: Counter() for phase in ("before", "update", "measured", "after")}
    drawn: Counter[str] = Counter()
    references, total = 0, made.total
    optimizer = make_optimizer(list(made.params.values()), made.recipe.settings) if total else None
    with _counting(made.model, counts) as enter:
        made.begin()
        for n in range(total):
            enter("update" if 0 < n < total - 1 else "measured")
            update = made.update(n)
            update.gradients()
            drawn.update({str(draw): rows for draw, rows in update.drawn.sizes.items()})
            references = max(references, len(update.references) + bool(update.before) + bool(update.task_gradient))
            optimizer.step()  # type: ignore[union-attr]  # there is one where there is an update
            optimizer.zero_grad()  # type: ignore[union-attr]
            update.finish()
        enter("after")
        reading, reader, rows = (
            cast(_Reading, made.inference),
            cast(_Rows, made.trainable.reader),
            len(made.inputs.rows),
        )
        moments, features = reading.measured, reader.read
        while_learned = {name: dict(state) for name, state in made.state.items()}
        made.settle()
    new = sum(len(batch) for batches in made.updates[1:-1] for batch in batches)
    return Cost(
        {name: rows / total for name, rows in sorted(drawn.items())},
        counts["update"]["forward"] / max(new, 1),
        counts["update"]["backward"] / max(new, 1),
        4 * references,
        (counts["before"]["forward"] + moments) / rows + len(made.inputs.columns),  # a teacher runs each new row once
        counts["after"]["forward"] + reading.measured - moments,
        _states(while_learned, made),
        features / rows,
        reader.read - features,
    )


@contextmanager
def _counting(model: nn.Module, counts: Mapping[str, Counter[str]]) -> Iterator[Callable[[str], None]]:
    """Count the rows that pass the network's first layer, forward and backward; give the function that begins a phase."""
    phase = "before"

    def enter(name: str) -> None:
        nonlocal phase
        phase = name

    def passed(_: nn.Module, __: Any, out: Tensor) -> None:
        counts[phase]["forward"] += len(out)
        if out.requires_grad:
            out.register_hook(lambda grad: counts[phase].update(backward=len(grad)))

    handle = next(module for module in model.modules() if isinstance(module, nn.Linear)).register_forward_hook(passed)
    try:
        yield enter
    finally:
        handle.remove()


def _states(learning: Mapping[str, State], made: Learner) -> dict[str, StateBytes]:
    numbers = sum(value.numel() for value in made.params.values())
    sizes = {}
    for name in sorted(
        name for name in {*learning, *made.measured_state} if learning.get(name) or made.measured_state.get(name)
    ):
        during, _ = _bytes(learning.get(name, {}), made.params)
        after, more = _bytes(made.measured_state.get(name, {}), made.params)
        sizes[name] = StateBytes(during / numbers, after / numbers, more > 0)
    return sizes


def _bytes(state: State, params: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the bytes of tensors that stand for a parameter, and those of the others."""
    own = sum(value.nbytes for key, value in state.items() if key.partition(".")[2] in params)
    return own, sum(value.nbytes for value in state.values()) - own
