"""A recipe tried on a network of a few weights, to count what it costs before anything real runs.

What a method does is its own business, and a number it declared would go stale. So its cost is counted: the `Learner` that
trains language models learns two tiny tasks. The rows that pass through the network, and the state of the methods, are counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from perdure.core.recipe import Recipe
from perdure.core.seams import State
from perdure.memory.pool import Pool
from perdure.model.features import Example, Features
from perdure.train.inference import Inference
from perdure.train.learner import Learner
from perdure.train.optimizer import make_optimizer
from perdure.train.task import TaskInputs, Trainable
from perdure.workflows.advise.explanation import Cost, StateBytes

ROWS, UPDATES = 512, 4  # new rows, and updates at least: enough for every method to reach its own size
KEPT = 32  # rows of each memory pool
CLASSES = 4


def rehearse(recipe: Recipe) -> Cost:
    """Return what `recipe` costs, counted over two tiny tasks with filled memory. Takes well under a second.

    Weights are float32 and hardly move, so what methods decide from losses stands at its start.
    """
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        first = _learner(model, recipe, first=True)
        _counted(first)
        return _counted(_learner(model, recipe, state=first.measured_state))


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
    return Learner(Trainable(model, dict(model.named_parameters()), Features()), small, inputs)


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
        while_learned = {name: dict(state) for name, state in made.state.items()}
        made.settle()
    new = sum(len(batch) for batches in made.updates[1:-1] for batch in batches)
    return Cost(
        {name: rows / total for name, rows in sorted(drawn.items())},
        counts["update"]["forward"] / max(new, 1),
        counts["update"]["backward"] / max(new, 1),
        4 * references,
        counts["before"]["forward"] / len(made.inputs.rows),
        counts["after"]["forward"],
        _states(while_learned, made),
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
