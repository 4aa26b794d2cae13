"""The memory of the tasks learned so far: rows with their columns, in any store.

A store derives from `Memory` and defines how its rows are read and written: a manifest of the ledger, or one file.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from perdure.core.recipe import Recipe, Settings
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext, Column
from perdure.memory.admission import admission_scores, admitted, shrink

if TYPE_CHECKING:  # imported late, so that reading a workspace loads no torch
    from perdure.core.seams import State
    from perdure.core.step import TopK
    from perdure.data.encode import Encoded
    from perdure.memory.columns import Columns
    from perdure.memory.pool import Pool


class StoredRow(Protocol):
    """A row in memory, as text or as tokens."""

    @property
    def key(self) -> str:
        """Identity of the row."""
        ...

    @property
    def pool(self) -> str:
        """Name of the pool that draws it: "replay" or "general"."""
        ...

    @property
    def task(self) -> str:
        """Name of its task."""
        ...

    @property
    def label(self) -> str | None:
        """Its class, where the task has classes."""
        ...


R = TypeVar("R", bound=StoredRow)


@dataclass(frozen=True)
class Memory(Generic[R]):
    """The stored rows and their columns. Immutable: every change returns a new memory."""

    rows: Sequence[R] = ()
    columns: "Columns" = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """Keys of the rows, in order."""
        return [row.key for row in self.rows]

    def of(self, pool: str) -> list[R]:
        """Return the rows of a pool."""
        return [row for row in self.rows if row.pool == pool]

    def pools(self, encode: "Callable[[Sequence[R]], Sequence[Encoded]]") -> "dict[str, Pool]":
        """Return the rows as pools to draw from, by name; `encode` returns the tokens of each row."""
        from perdure.memory.pool import Pool

        made = {}
        for name in sorted({row.pool for row in self.rows}):
            mine = self.of(name)
            tokens, labels, tasks = encode(mine), [row.label for row in mine], [row.task for row in mine]
            made[name] = Pool([row.key for row in mine], tokens, labels, tasks, self.columns)
        return made

    def add(self, rows: Iterable[R]) -> Self:
        """Return the memory with more rows."""
        return replace(self, rows=[*self.rows, *rows])

    def admit(self, fresh: Sequence[R], scores: Sequence[float], settings: Settings, *key: object) -> Self:
        """Return the memory with the best of a task's rows added, within the budget of the pool "replay".

        Args:
            fresh: The rows of the task, for the pool "replay".
            scores: Score of each row; the highest enter.
            settings: Number of rows per label or task, and the budget in rows.
            *key: Key of the choice of rows that are removed, such as the seed and the number of the task.
        """
        grown = self.add(self._entering([fresh[i] for i in admitted(fresh, scores, lambda row: row.label, settings)]))
        fitting = shrink(grown.of("replay"), lambda row: (row.task, row.label), settings.memory_size, *key)
        keys = {row.key for row in fitting}
        return replace(grown, rows=[row for row in grown.rows if row.pool != "replay" or row.key in keys])

    def with_columns(
        self, rows: Sequence[R], wanted: Iterable[Column], query: "Callable[[Column, Sequence[R]], Sequence[TopK]]"
    ) -> Self:
        """Return the memory with columns of some of its rows. A row that has a column keeps it, unless the column is refreshed.

        Args:
            rows: Rows of this memory.
            wanted: The columns.
            query: Returns the distribution of a column's teacher on each of the rows.
        """
        columns = dict(self.columns)
        for column in wanted:
            known = {} if column.refresh else columns.get(column.name, {})
            missing = [row for row in rows if row.key not in known]
            fresh = dict(zip([row.key for row in missing], query(column, missing), strict=True))
            columns[column.name] = {**columns.get(column.name, {}), **fresh}
        return replace(self, columns=columns)

    def _entering(self, best: Sequence[R]) -> Iterable[R]:
        """Return the best rows that are not in memory."""
        known = set(self.keys)
        return [row for row in best if row.key not in known]


def scores_of(recipe: Recipe, rows: Sequence[Row], context: AdmitContext, states: "Mapping[str, State]") -> list[float]:
    """Return the score of each row: the admitting method's, or a reservoir's where no method of the recipe ranks.

    Args:
        recipe: The recipe.
        rows: The rows of the task.
        context: Seed, task and losses.
        states: State of each method, by name.
    """
    method: Any = recipe.owner("admit")
    if method is None:
        return admission_scores("reservoir", rows, context)
    return method.admit(rows, context, states[method.name])
