"""Memory across entries: what head's manifest gives a learn to draw from, and the manifest that the learn leaves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext, Column, DrawContext
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger, row_key
from perdure.memory.admission import admission_scores, admitted, shrink
from perdure.workflows.learn.encoder import RowEncoder

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime
    from perdure.core.seams import State
    from perdure.core.step import TopK
    from perdure.data.encode import Encoded
    from perdure.memory.columns import Columns
    from perdure.memory.pool import Pool
    from perdure.train.learner import Learner

Item = tuple[dict[str, Any], Row]


class Memory:
    """The rows an entry remembers, with their columns. `items` pair a manifest item with its row."""

    def __init__(self, items: Sequence[Item] = (), columns: "Columns | None" = None):
        self.items: list[Item] = list(items)
        self.columns: Columns = columns or {}

    @classmethod
    def at(cls, ledger: Ledger, entry: Entry) -> "Memory":
        """Return the memory of `entry`, without rows deleted since."""
        if entry.memory is None:
            return cls()
        columns: Columns = {}
        if entry.columns:
            from perdure.memory.columns import unpack

            columns = unpack(ledger.objects.get(entry.columns), ledger.manifest_keys(entry.memory))
        return cls(ledger.manifest_rows(entry.memory), columns)

    def pools(self, encoder: RowEncoder) -> "dict[str, Pool]":
        """Return the rows as pools to draw from, tokenised."""
        from perdure.memory.pool import Pool

        made = {}
        for name in sorted({item["pool"] for item, _ in self.items}):
            mine = [(item, row) for item, row in self.items if item["pool"] == name]
            made[name] = Pool(
                [item["row"] for item, _ in mine],
                encoder.all(row for _, row in mine),
                [row.label for _, row in mine],
                [row.task for _, row in mine],
                self.columns,
            )
        return made

    def save(self, ledger: Ledger) -> tuple[str | None, str | None]:
        """Keep rows, manifest and columns; return the hashes of manifest and columns."""
        if not self.items:
            return None, None
        from perdure.memory.columns import pack

        tensors = pack(self.columns, [item["row"] for item, _ in self.items])
        columns = ledger.objects.put(tensors) if tensors else None
        ledger.put_rows(row for _, row in self.items)
        return ledger.put_manifest([item for item, _ in self.items]), columns


@dataclass(frozen=True)
class Teachers:
    """The models that a recipe's columns ask.

    Args:
        recipe: Names the columns, and the teacher of each.
        encoder: Turns rows into tokens.
        runtime: Holds the model, whose state and base are two of the teachers.
    """

    recipe: Recipe
    encoder: RowEncoder
    runtime: "Runtime"

    def query(self, column: Column, rows: "Sequence[Encoded]") -> "list[TopK]":
        """Return the distribution of the column's teacher on each row: the model as it is loaded now, the base, or another."""
        if not rows:
            return []
        if column.teacher == "settled":
            return self.runtime.top_k(rows, column.top_k)
        if column.teacher == "base":
            with self.runtime.bare():
                return self.runtime.top_k(rows, column.top_k)
        from perdure.bridges.teacher import said_by

        return said_by(column.teacher, rows, column.top_k, self.runtime)

    def teach(self, memory: Memory, pool: str, rows: Sequence[Row]) -> None:
        """Write the columns that the recipe wants beside `rows` of a pool. Cost: one forward a row each.

        Rows that have a column keep it, unless it is to be refreshed.
        """
        for column in self.recipe.columns(pool):
            known = {} if column.refresh else memory.columns.get(column.name, {})
            fresh = [row for row in rows if row_key(row) not in known]
            found = self.query(column, self.encoder.all(fresh))
            by_key = dict(zip([row_key(row) for row in fresh], found, strict=True))
            memory.columns[column.name] = {**memory.columns.get(column.name, {}), **by_key}


def with_general(
    memory: Memory,
    rows: Sequence[Row],
    teachers: Teachers,
    new: "Sequence[Encoded]",
    *,
    seed: int,
    tests: Collection[str],
) -> Memory:
    """Return the memory with general rows taken in, each with the base model's distribution, computed once.

    It takes in no more than this learn will draw: of a sample those nearest in length to the new rows, as a long row costs
    as much as many short ones. General rows that ask what a test row asks, as one of a newer task may, are in it no longer.

    Args:
        memory: The memory so far.
        rows: The general rows that may be rehearsed.
        teachers: Of the recipe whose method draws them; without one the memory stays.
        new: The rows that the learn trains.
        seed: Chooses the sample.
        tests: Questions of every task's test rows.
    """
    allowed = [(item, row) for item, row in memory.items if item["pool"] != "general" or row.question not in tests]
    memory, recipe = Memory(allowed, memory.columns), teachers.recipe
    method = next(iter(recipe.drawing_from("general")), None)
    if method is None:
        return memory
    longest = max(map(len, new))
    drawn = DrawContext(0, 1, len(new) * recipe.settings.num_train_epochs, {}).rows_for(method.mix)
    room = max(0, min(method.general_rows, drawn) - sum(item["pool"] == "general" for item, _ in memory.items))
    known = {item["row"] for item, _ in memory.items}
    unknown = [row for row in rows if row_key(row) not in known]
    sample = shrink(unknown, lambda row: row.label, method.general_rows, seed, "general") if room else []
    fresh = sorted(sample, key=lambda row: abs(len(teachers.encoder(row)) - longest))[:room]
    if not fresh:
        return memory
    items = [({"row": row_key(row), "pool": "general", "task": row.task, "label": row.label}, row) for row in fresh]
    grown = Memory([*memory.items, *items], dict(memory.columns))
    teachers.teach(grown, "general", fresh)
    return grown


def after(
    memory: Memory,
    task: TaskData,
    teachers: Teachers,
    learner: "Learner",
    *,
    stage: int,
    nll_before: Sequence[float] | None,
    tests: Collection[str],
) -> Memory:
    """Return the memory after `task`: its admitted rows beside the older ones, within the budget, columns fresh.

    Args:
        memory: The memory the learn drew from.
        task: The task just learned.
        teachers: Of the recipe whose admitting method ranks the rows; a reservoir where methods draw and none ranks.
        learner: The settled learn.
        stage: Number of the learn; kept beside each admitted row.
        nll_before: Losses of the train rows before the task, if the method needs them.
        tests: Questions of every task's test rows; a row that asks one is never admitted.
    """
    recipe = teachers.recipe
    free = [i for i, row in enumerate(task.train) if row.question not in tests]
    if not recipe.remembers or not free:
        return memory
    rows = [task.train[i] for i in free]
    nll_after = learner.inference.nll(teachers.encoder.all(rows)) if recipe.needs("nll_after") else None
    context = AdmitContext(learner.inputs.seed, task.name, nll_before and [nll_before[i] for i in free], nll_after)
    scores = ranked(rows, context, learner)
    best = [(rows[i], scores[i]) for i in admitted(rows, scores, lambda row: row.label, recipe.settings)]
    known = {item["row"] for item, _ in memory.items}
    items = [*memory.items]
    for row, score in best:
        if row_key(row) not in known:
            facts = {"row": row_key(row), "pool": "replay", "task": task.name, "label": row.label}
            items.append(({**facts, "stage": stage, "score": round(score, 6)}, row))
    replay = [pair for pair in items if pair[0]["pool"] == "replay"]
    size = recipe.settings.memory_size
    fitting = shrink(replay, lambda pair: (pair[1].task, pair[1].label), size, learner.inputs.seed, stage)
    kept = {pair[0]["row"] for pair in fitting}
    new = Memory([p for p in items if p[0]["pool"] != "replay" or p[0]["row"] in kept], dict(memory.columns))
    teachers.teach(new, "replay", [row for item, row in new.items if item["pool"] == "replay"])
    return new


def ranked(rows: Sequence[Row], context: AdmitContext, learner: "Learner") -> list[float]:
    """Return the score of each row for memory: the admitting method's, or a reservoir's where no method ranks."""
    method = learner.recipe.owner("admit")
    if method is None:
        return admission_scores("reservoir", rows, context)
    return method.admit(rows, context, learner.state[method.name])


def states_at(ledger: Ledger, entry: Entry | None, device: Any) -> "dict[str, State]":
    """Return what each method kept at `entry`, by method; nothing where it kept none."""
    states: dict[str, State] = {}
    if entry is not None and entry.state:
        for name, value in ledger.objects.get(entry.state).items():
            method, _, key = name.partition("/")
            states.setdefault(method, {})[key] = value.clone().to(
                device
            )  # a copy is aligned, so that products round alike
    return states


def keep_states(ledger: Ledger, entry: Entry | None, kept: "Mapping[str, State]") -> str | None:
    """Store what methods keep for the next task beside what others kept at `entry`; return the object's hash."""
    states = {**states_at(ledger, entry, "cpu"), **kept}
    tensors = {f"{method}/{key}": value.cpu() for method, state in states.items() for key, value in state.items()}
    return ledger.objects.put(tensors) if tensors else None
