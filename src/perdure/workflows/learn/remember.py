"""Memory across entries: what head's manifest gives a learn to draw from, and the manifest that the learn leaves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext, Column, DrawContext
from perdure.core.stages import Stages
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger, row_key
from perdure.ledger.records import MemoryItem
from perdure.memory.admission import shrink
from perdure.memory.memory import Memory, scores_of
from perdure.workflows.learn.encoder import RowEncoder

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime
    from perdure.core.seams import State
    from perdure.core.step import TopK
    from perdure.data.encode import Encoded
    from perdure.memory.columns import Columns
    from perdure.train.learner import Learner


@dataclass(frozen=True)
class LedgerRow:
    """A remembered row with the item that names it in a manifest."""

    item: MemoryItem
    row: Row

    @property
    def key(self) -> str:
        """Key of the row in the ledger."""
        return self.item.row

    @property
    def pool(self) -> str:
        """Name of the pool that draws it."""
        return self.item.pool

    @property
    def task(self) -> str:
        """Name of its task."""
        return self.row.task

    @property
    def label(self) -> str | None:
        """Its class, where the task has classes."""
        return self.row.label


@dataclass(frozen=True)
class LedgerMemory(Memory[LedgerRow]):
    """The rows that an entry remembers, with their columns."""

    @classmethod
    def at(cls, ledger: Ledger, entry: Entry) -> "LedgerMemory":
        """Return the memory of `entry`, without rows deleted since."""
        if entry.memory is None:
            return cls()
        columns: Columns = {}
        if entry.columns:
            from perdure.memory.columns import unpack

            columns = unpack(ledger.objects.get(entry.columns), ledger.manifest_keys(entry.memory))
        return cls([LedgerRow(item, row) for item, row in ledger.manifest_rows(entry.memory)], columns)

    def save(self, ledger: Ledger) -> tuple[str | None, str | None]:
        """Keep rows, manifest and columns; return the hashes of manifest and columns."""
        if not self.rows:
            return None, None
        from perdure.memory.columns import pack

        tensors = pack(self.columns, self.keys)
        columns = ledger.objects.put(tensors) if tensors else None
        ledger.put_rows(remembered.row for remembered in self.rows)
        return ledger.put_manifest([remembered.item for remembered in self.rows]), columns


@dataclass(frozen=True)
class Teachers:
    """The models that a recipe's columns ask.

    Args:
        recipe: Names the columns, and the teacher of each.
        encoder: Turns rows into tokens.
        runtime: Holds the model, whose state and base are two of the teachers.
        stages: Counts the seconds that they take, and shows how far they are.
    """

    recipe: Recipe
    encoder: RowEncoder
    runtime: "Runtime"
    stages: Stages = field(default_factory=Stages)

    def teach(self, memory: LedgerMemory, rows: Sequence[LedgerRow], pool: str) -> LedgerMemory:
        """Return the memory with the columns that the recipe wants for these rows of a pool. Cost: one forward a row each."""
        return memory.with_columns(rows, self.recipe.columns(pool), self._query)

    def query(self, column: Column, rows: "Sequence[Encoded]") -> "list[TopK]":
        """Return the distribution of the column's teacher on each row: the model as it is loaded now, the base, or another."""
        if not rows:
            return []
        with self.stages.stage("teachers", f"distributions of the teacher {column.teacher}"):
            if column.teacher == "settled":
                return self.runtime.top_k(rows, column.top_k, self.stages.show, labels=column.labels)
            if column.teacher == "base":
                with self.runtime.reference():
                    return self.runtime.top_k(rows, column.top_k, self.stages.show, labels=column.labels)
            from perdure.bridges.teacher import teacher_top_k

            return teacher_top_k(
                column.teacher, rows, column.top_k, self.runtime, self.stages.show, labels=column.labels
            )

    def _query(self, column: Column, rows: Sequence[LedgerRow]) -> "list[TopK]":
        return self.query(column, self.encoder.all(remembered.row for remembered in rows))


def with_general(
    memory: LedgerMemory,
    rows: Sequence[Row],
    teachers: Teachers,
    new: "Sequence[Encoded]",
    *,
    seed: int,
    tests: Collection[str],
) -> LedgerMemory:
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
    allowed = [own for own in memory.rows if own.pool != "general" or own.row.question not in tests]
    memory, recipe = replace(memory, rows=allowed), teachers.recipe
    method = next(iter(recipe.drawing_from("general")), None)
    if method is None:
        return memory
    longest = max(map(len, new))
    drawn = DrawContext(0, 1, len(new) * recipe.settings.epochs(len(new)), {}).rows_for(method.mix)
    room = max(0, min(method.general_rows, drawn) - len(memory.of("general")))
    known = set(memory.keys)
    unknown = [row for row in rows if row_key(row) not in known]
    sample = shrink(unknown, lambda row: row.label, method.general_rows, seed, "general") if room else []
    fresh = sorted(sample, key=lambda row: abs(len(teachers.encoder(row)) - longest))[:room]
    if not fresh:
        return memory
    new_rows = [LedgerRow(_item(row, "general", row.task), row) for row in fresh]
    return teachers.teach(memory.add(new_rows), new_rows, "general")


def after(
    memory: LedgerMemory,
    task: TaskData,
    teachers: Teachers,
    learner: "Learner",
    *,
    stage: int,
    nll_before: Sequence[float] | None,
    tests: Collection[str],
) -> LedgerMemory:
    """Return the memory after `task`: its admitted rows and the older ones, within the budget, with new columns.

    Args:
        memory: The memory the learn drew from.
        task: The task just learned.
        teachers: Of the recipe whose admitting method ranks the rows; a reservoir where methods draw and none ranks.
        learner: The settled learn.
        stage: Number of the learn; stored with each admitted row.
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
    scores = scores_of(recipe, rows, context, learner.state)
    fresh = [
        LedgerRow(replace(_item(row, "replay", task.name), stage=stage, score=round(score, 6)), row)
        for row, score in zip(rows, scores, strict=True)
    ]
    grown = memory.admit(fresh, scores, recipe.settings, learner.inputs.seed, stage)
    return teachers.teach(grown, grown.of("replay"), "replay")


def _item(row: Row, pool: str, task: str) -> MemoryItem:
    """Return the item of a manifest that names a row."""
    return MemoryItem(row_key(row), pool, task, row.label)


def states_at(ledger: Ledger, entry: Entry | None, device: Any) -> "dict[str, State]":
    """Return the state that each method stored at `entry`, by method; nothing for a method without one."""
    states: dict[str, State] = {}
    if entry is not None and entry.state:
        for name, value in ledger.objects.get(entry.state).items():
            method, _, key = name.partition("/")
            states.setdefault(method, {})[key] = value.clone().to(
                device
            )  # a copy is aligned, so that products round alike
    return states


def store_states(ledger: Ledger, entry: Entry | None, new: "Mapping[str, State]") -> str | None:
    """Store new states of methods with the states of the other methods at `entry`; return the object's hash."""
    states = {**states_at(ledger, entry, "cpu"), **new}
    tensors = {f"{method}/{key}": value.cpu() for method, state in states.items() for key, value in state.items()}
    return ledger.objects.put(tensors) if tensors else None
