"""A pool of memory rows, ready to be drawn from while a task is learned."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from perdure.core.seams import Draw
from perdure.core.step import TopK
from perdure.data.encode import Encoded
from perdure.memory.service import Server


@dataclass
class Pool:
    """Rows of one pool with their tokens and columns, and how often each was served.

    Args:
        keys: Row keys, the order of everything else here.
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
    served: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.served = self.served or [0] * len(self.keys)

    def draw(self, wish: Draw, length: int, *key: object) -> list[int]:
        """Return the indices of the rows that serve `wish` beside a batch of `length` tokens, and count the service."""
        server = Server(self._groups(wish.balance), [len(row) for row in self.rows], self.served)
        return server.serve(wish.size, length, *key)

    def column(self, name: str, index: int) -> TopK | None:
        """Return a row's stored distribution, or None where it has none that fits its tokens (it is then stale)."""
        stored = self.columns.get(name, {}).get(self.keys[index])
        return stored if stored is not None and len(stored.tail) == self.rows[index].targets else None

    def _groups(self, balance: str) -> list[Hashable]:
        if balance == "label":
            return [(task, label) for task, label in zip(self.tasks, self.labels, strict=True)]
        return list(self.tasks) if balance == "task" else list(self.keys)
