"""The comparison of a benchmark's runs, as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import Record, omitted, omitted_mapping
from perdure.core.tables import Grid, Tabular
from perdure.evaluate.matrix import Metric
from perdure.ledger.records.guards_verdict import DRIFT
from perdure.workflows.bench.records import LeftOut, RunError

ROWS = ("rows_new", "rows_drawn", "forwards")
METRICS = ("bwt", "forgetting", "learning_accuracy")


@dataclass(frozen=True)
class Estimate(Record):
    """A number with its interval, or a median with its range over seeds.

    Args:
        value: The number.
        low: The lower end, or the least.
        high: The upper end, or the most.
        n: Number of test rows, or of seeds.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class WatchedChange(Record):
    """What the tasks changed of something that was watched.

    Args:
        before: Mean score of the base model.
        after: Mean score after the last task.
        value: after - before.
        low: Lower end of its interval.
        high: Upper end.
        n: Number of test rows.
    """

    before: float
    after: float
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class GuardChange(Record):
    """What the tasks changed of a guard.

    Args:
        ability: What it measures; "drift" where 1 means that nothing changed.
        before: Mean score of the base model.
        after: Mean score after the last task.
        value: after - before.
        low: Lower end of its interval, paired row by row.
        high: Upper end.
        n: Number of rows.
        groups: Number of groups of rows that belong together; 0 where rows are independent.
        blind: Whether the base's score is not above chance, so that the guard cannot fall.
        readings: Mean of each other number after the last task, as "kl" in nats a token.
        by_stage: Mean score after each task; None where it was not scored.
    """

    ability: str
    before: float
    after: float
    value: float
    low: float
    high: float
    n: int
    groups: int
    blind: bool
    readings: Mapping[str, Estimate]
    by_stage: tuple[Estimate | None, ...]

    @property
    def drifts(self) -> bool:
        """Whether it measures distance from the base, and not right or wrong."""
        return self.ability == DRIFT


@dataclass(frozen=True)
class WorstGuard(Record):
    """The ability that lost most.

    Args:
        name: The guard.
        value: Its score after the last task, less the base's.
        low: Lower end of its interval, which holds for all abilities together.
        high: Upper end.
        of: Number of guards that it is the worst of.
    """

    name: str
    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True)
class ArmLine(Record):
    """What was measured of an arm, over its runs.

    Args:
        arm: Its label.
        seeds: The seeds of its runs.
        acc: Mean score after the last task.
        bwt: Change of old tasks since they were learned.
        forgetting: Best score of old tasks less their last.
        fwt: What was gained on a task before it was learned.
        learning_accuracy: Mean score of a task when it was just learned.
        acc_by_seed: `acc` of each run, by seed.
        acc_minus: `acc` less that of the arm it is compared with, test row by test row.
        watched: By name what the tasks changed of it.
        train_ratio: Training time in multiples of the baseline's; None if nothing can be compared.
        train_seconds: Seconds of training.
        peak_mib: The most memory of the process.
        stored_bytes: Bytes of the last state.
        guards: By name what the tasks changed of a guard.
        worst_guard: The ability that lost most.
        guards_minus: By guard its score after the last task, less that of the arm it is compared with, row by row.
        rows_new: Rows of the tasks that updates had, over all tasks, each as often as an update had it; None if not known.
        rows_drawn: Rows from memory that updates drew, likewise.
        forwards: Rows that ran forward in updates, new and drawn, each as often as it did.
        acc_routed: Mean score after the last task where no request names its task; None without a router.
        routing: Share of the test rows that were sent to their own task.
    """

    arm: str
    seeds: tuple[int, ...]
    acc: Metric
    bwt: Metric
    forgetting: Metric
    fwt: Metric
    learning_accuracy: Metric
    acc_by_seed: Mapping[str, float | None]
    acc_minus: Estimate | None
    watched: Mapping[str, WatchedChange]
    train_ratio: Estimate | None
    train_seconds: Estimate | None
    peak_mib: Estimate | None
    stored_bytes: Estimate | None
    guards: Mapping[str, GuardChange] = omitted_mapping()
    worst_guard: WorstGuard | None = omitted(None)
    guards_minus: Mapping[str, Estimate] = omitted_mapping()
    rows_new: Estimate | None = omitted(None)
    rows_drawn: Estimate | None = omitted(None)
    forwards: Estimate | None = omitted(None)
    acc_routed: Estimate | None = omitted(None)
    routing: Estimate | None = omitted(None)


@dataclass(frozen=True)
class BenchComparison(Record, Tabular):
    """The comparison that tables are made of.

    Args:
        against: The arm that `acc` is compared with.
        watched: The names of everything that was watched.
        arms: The arms, the best `acc` first.
        failed: The runs that failed.
        computed: Dtypes and devices of the runs.
        left_out: Number of results of an earlier recipe under a label that has a newer one.
        guards: The names of all guards.
        too_long: By task the rows that were left out before the draw, where the suite leaves out rows that are too long.
    """

    against: str
    watched: tuple[str, ...]
    arms: tuple[ArmLine, ...]
    failed: tuple[RunError, ...]
    computed: tuple[str, ...]
    left_out: int
    guards: tuple[str, ...] = omitted(())
    too_long: Mapping[str, LeftOut] = omitted_mapping()

    def grid(self) -> Grid:
        """Return a row for each arm, the best `acc` first."""
        names = ("acc", "acc_minus", *METRICS, "train_ratio", "train_seconds", "peak_mib", "stored_bytes", *ROWS)
        cells = [[getattr(line, name) for name in names] for line in self.arms]
        rows = [
            (line.arm, len(line.seeds), *(one and one.value for one in own))
            for line, own in zip(self.arms, cells, strict=True)
        ]
        return Grid(("arm", "seeds", *names), tuple(rows), f"acc_minus: acc less that of {self.against}")

    def arm(self, label: str) -> ArmLine:
        """Return the line of an arm."""
        return next(line for line in self.arms if line.arm == label)
