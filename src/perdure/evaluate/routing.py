"""How well requests without a task's name find their task: the share of test rows sent home, and the confusion of tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.core.records import Record
from perdure.maths.statistics import mean_interval


@dataclass(frozen=True)
class SentRows(Record):
    """Where the test rows of one task were sent.

    Args:
        task: Name of the task.
        sent: Number of rows by the task that they were sent to; tasks without rows are left out.
        unknown: Number of rows that were near no task.
    """

    task: str
    sent: Mapping[str, int]
    unknown: int


@dataclass(frozen=True)
class RoutingAccuracy(Record):
    """How many test rows a router sent to their own task.

    Args:
        accuracy: Share of the rows.
        low: Lower end of its 95% interval (Wilson).
        high: Upper end.
        n: Number of rows, over all tasks that the router knows.
        unknown: Share of the rows that were near no task.
        confusion: A line for each task.
    """

    accuracy: float
    low: float
    high: float
    n: int
    unknown: float
    confusion: tuple[SentRows, ...]

    @property
    def line(self) -> str:
        """The accuracy in a line of text."""
        return (
            f"{100 * self.accuracy:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}] of {self.n:,} test rows found their task "
            f"by themselves, {100 * self.unknown:.1f}% were near no task"
        )

    def renamed(self, aliases: Mapping[str, str]) -> "RoutingAccuracy":
        """Return it with each renamed task under its alias.

        Args:
            aliases: Alias by name.
        """
        confusion = tuple(
            SentRows(aliases.get(one.task, one.task), {aliases.get(k, k): n for k, n in one.sent.items()}, one.unknown)
            for one in self.confusion
        )
        return RoutingAccuracy(self.accuracy, self.low, self.high, self.n, self.unknown, confusion)


def routing_accuracy(sent: Mapping[str, Sequence[str | None]]) -> RoutingAccuracy | None:
    """Return how many rows were sent to their own task; None without rows.

    Args:
        sent: Of each task, the task that each test row was sent to; None for no task.
    """
    hits = [float(target == task) for task, rows in sent.items() for target in rows]
    if not hits:
        return None
    confusion = tuple(
        SentRows(task, {t: rows.count(t) for t in sorted({t for t in rows if t is not None})}, rows.count(None))
        for task, rows in ((task, list(rows)) for task, rows in sent.items())
    )
    unknown = sum(one.unknown for one in confusion) / len(hits)
    return RoutingAccuracy(*mean_interval(hits), len(hits), unknown, confusion)
