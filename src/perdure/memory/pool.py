"""A pool of memory rows, ready to be drawn from while a task is learned."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from perdure.core.seams import Draw
from perdure.core.step import TopK
from perdure.data.encode import Encoded
from perdure.memory.service import Server, by_weight


@dataclass
class Pool:
    """Rows of one pool with their tokens and columns, and how often each was drawn, by account.

    Args:
        keys: Row keys; all other fields have their order.
        rows: Tokens of each row.
        labels: Label of each row, None where its task has none.
        tasks: Task of each row.
        columns: Column name to row key to stored distribution.
    """

    keys: Sequence[str]
    rows: Sequence[Encoded]
    labels: Sequence[str | None]
    tasks: Sequence[str]
    columns: Mapping[str, Mapping[str, TopK]] = field(default_factory=dict)
    served: dict[str, list[int]] = field(default_factory=dict)

    def draw(self, request: Draw, length: int, *key: object, account: str = "") -> list[int]:
        """Return the indices of the rows for `request`, to join a batch of `length` tokens, and count the draw.

        Args:
            request: Number of rows, and the rule that chooses them.
            length: Tokens of the longest row of the batch.
            *key: Key of this draw.
            account: Account in which the draw is counted; other accounts are not influenced.
        """
        if request.weights is not None:
            return by_weight(request.weights, request.size, *key)
        served = self.served.setdefault(account, [0] * len(self.keys))
        return Server(self._groups(request.balance), [len(row) for row in self.rows], served).serve(
            request.size, length, *key
        )

    @cached_property
    def task_numbers(self) -> list[int]:
        """Number of each row's task, by order of appearance from 0."""
        numbers: dict[str, int] = {}
        return [numbers.setdefault(task, len(numbers)) for task in self.tasks]

    def column(self, name: str, index: int) -> TopK | None:
        """Return a row's stored distribution, or None where it has none that fits its tokens (it is then stale)."""
        stored = self.columns.get(name, {}).get(self.keys[index])
        return stored if stored is not None and len(stored.tail) == self.rows[index].targets else None

    def _groups(self, balance: str) -> list[Hashable]:
        if balance == "label":
            return [(task, label) for task, label in zip(self.tasks, self.labels, strict=True)]
        return list(self.tasks) if balance == "task" else list(self.keys)
