"""A benchmark run without a language model: an MLP on feature vectors, one head for all classes, every weight trained."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perdure.bridges.optimizers import FACTORIES
from perdure.bridges.trainer_memory import losses, remembered
from perdure.core.canonical import content_hash
from perdure.core.errors import BadSpec
from perdure.core.keyed import seed_of
from perdure.core.recipe import Recipe
from perdure.core.seams import State
from perdure.data.split import held_out
from perdure.evaluate.matrix import Stage, build_matrix
from perdure.evaluate.scorers import score_record
from perdure.ledger.records import Score
from perdure.memory.columns import pack
from perdure.memory.file import TokenMemory, TokenRow
from perdure.model.features import Example, Features
from perdure.train import loop
from perdure.train.learner import Learner
from perdure.train.task import TaskInputs, Trainable
from perdure.workflows.bench.measures import Told, cpu_seconds, machine, mean_beats, peak_mib, short_items
from perdure.workflows.bench.records import RunMeasures, StoredBytes, TaskCost, TaskItems
from perdure.workflows.bench.rows import RowFields, rows_of
from perdure.workflows.bench.suite import Suite, SuiteTask


@dataclass(frozen=True)
class Sample(TokenRow):
    """One row of a task, as features: `row` is its `Example`."""

    @cached_property
    def key(self) -> str:
        """Identity: the same features in the same task with the same label."""
        return content_hash([self.task, self.label, self.row.features.tolist()])  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Part:
    """A task as samples."""

    name: str
    train: list[Sample]
    test: list[Sample]


def run_features(suite: Suite, recipe: Recipe, seed: int, data: Path, scratch: Path, told: Told) -> RunMeasures:
    """Learn a suite's tasks one after the other with an MLP on the reference loop; see `text.run_text`.

    What a recipe says of LoRA and of the host means nothing here. Memory and the methods' state go from task to task as
    they do in a workspace, and `start: base` begins each task from the first weights.

    Raises:
        BadSpec: A method plans the adapter of a task; an MLP has none. Or the recipe trains nothing.
    """
    if not recipe.trains:
        raise BadSpec(
            f"recipe {recipe.name} trains nothing and reads a language model, which this suite has none of; take another suite"
        )
    owner = recipe.owner("adapter")
    if owner is not None and owner.name != "shared":  # whose plan would be left out
        raise BadSpec(
            f"recipe {recipe.name} plans the adapter of each task ({owner.name}), and the MLP of this suite has no adapter; take "
            "a suite with a language model, or drop the method"
        )
    torch.set_num_threads(1)  # on layers this small two threads wait for each other longer than they compute
    parts = _parts(suite, data, seed)
    rows: list[Any] = [sample.row for part in parts for sample in part.train]
    classes = 1 + max(row.label for row in rows)
    model = _mlp(suite.model, parts[0].train[0].row.features.numel(), classes, seed)  # type: ignore[attr-defined]
    first = {name: value.detach().clone() for name, value in model.named_parameters()}
    memory = TokenMemory()
    state: dict[str, State] = {}
    records, learned = [[_score(model, part) for part in parts]], []
    for stage, part in enumerate(parts, 1):
        if recipe.settings.start == "base":
            model.load_state_dict(first)
            state = {}
        seen = [sample for known in parts[:stage] for sample in known.train] if recipe.settings.data == "all" else []
        began, computed = time.perf_counter(), time.process_time()
        learner = _learner(model, recipe, seen or part.train, part.name, memory, state, seed)
        nll_before = losses(learner, part.train, "nll_before")
        loop.train(learner, factories=FACTORIES)
        spent = time.perf_counter() - began, time.process_time() - computed
        memory = remembered(memory, part.train, learner, stage=stage, nll_before=nll_before)
        state |= learner.measured_state
        began = time.perf_counter()
        records.append([_score(model, other) for other in parts])
        learned.append(_cost(learner, *spent, time.perf_counter() - began))
        told(part.name)
    stages = [Stage(None, "base", None), *(Stage(None, "learn", part.name) for part in parts)]
    return RunMeasures(
        matrix=build_matrix([part.name for part in parts], stages, records),
        items={part.name: _items([line[j] for line in records]) for j, part in enumerate(parts)},
        tasks=tuple(learned),
        stored=_stored(model, memory, state),
        machine=machine(torch.device("cpu"), "float32"),
        software={name: version(name) for name in ("perdure", "torch")},
        peak_mib=peak_mib(),
        cpu_seconds=cpu_seconds(),
    )


def _parts(suite: Suite, data: Path, seed: int) -> list[Part]:
    rows = {task.name: rows_of(task, data, seed) for task in suite.tasks}
    classes = sorted({row["label"] for own in rows.values() for row in own})
    return [_part(task, rows[task.name], classes) for task in suite.tasks]


def _part(task: SuiteTask, rows: Sequence[RowFields], classes: Sequence[str]) -> Part:
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    for row in rows:
        example: Any = Example(torch.tensor(row["features"]), classes.index(row["label"]))
        samples[row["split"]].append(Sample(example, task.name, row["label"]))
    return Part(task.name, samples["train"], samples["test"])


def _mlp(spec: str, features: int, classes: int, seed: int) -> nn.Sequential:
    """Return an MLP with the hidden widths that `spec` names ("mlp:100,100"), its weights drawn by the seed."""
    kind, _, widths = spec.partition(":")
    if kind != "mlp" or not all(width.isdigit() for width in widths.split(",")):
        raise BadSpec(f"model {spec!r} is no MLP; write its hidden widths, as mlp:100 or mlp:100,100")
    torch.manual_seed(seed_of(seed, "mlp"))
    sizes = [features, *map(int, widths.split(","))]
    hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], classes))


def _learner(
    model: nn.Module, recipe: Recipe, samples: Sequence[Sample], task: str, memory: TokenMemory, state: Any, seed: int
) -> Learner:
    """Return the learn of one task; validation rows are held out where the recipe asks for them."""
    rows: list[Any] = [sample.row for sample in samples]
    validation: list[Any] = []
    if recipe.settings.validates or recipe.needs("validation"):
        rows, validation = held_out(rows, recipe.settings.validation_share, seed, task)
    inputs = TaskInputs(
        task,
        rows,
        validation=validation,
        pools=memory.token_pools() if recipe.owners("draw") else {},
        state=state,
        first=not memory.tasks,
        seed=seed,
    )
    return Learner(Trainable(model, dict(model.named_parameters()), Features()), recipe, inputs)


@torch.no_grad()
def _score(model: nn.Module, part: Part) -> Score:
    model.eval()
    batch = Features().collate([sample.row for sample in part.test])  # type: ignore[misc]
    said = model(batch.features).argmax(-1)
    items = (said == batch.labels).float().tolist()
    return score_record("exact", items, list(map(str, said.tolist())), [sample.key for sample in part.test], 0.0)


def _items(column: Sequence[Score]) -> TaskItems:
    """Return the scores of the test rows of one task; see `text.all_items`."""
    return TaskItems(tuple(row[:16] for row in column[0].rows), tuple(short_items(one.items) for one in column))


def _cost(learner: Learner, train_seconds: float, train_cpu_seconds: float, eval_seconds: float) -> TaskCost:
    record = learner.record
    return TaskCost(
        task=learner.inputs.name,
        train_seconds=round(train_seconds, 3),
        train_cpu_seconds=round(train_cpu_seconds, 3),
        eval_seconds=round(eval_seconds, 3),
        tokens=record.tokens,
        warnings=(),
        updates=learner.ended,
        heartbeats=mean_beats(record.heartbeats),
        rows=record.rows,
    )


def _stored(model: nn.Module, memory: TokenMemory, state: Any) -> StoredBytes:
    """Return the bytes that the last state needs; see `text.stored`."""

    def size(tensors: Any) -> int:
        return sum(value.numel() * value.element_size() for value in tensors)

    return StoredBytes(
        weights=size(model.parameters()),
        memory_rows=size(kept.row.features for kept in memory.rows),  # type: ignore[attr-defined]
        memory_columns=size(pack(memory.columns, memory.keys).values()),
        method_state=size(value for own in state.values() for value in own.values()),
    )
