"""The comparison of a benchmark's runs, as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import Record
from perdure.core.tables import Grid, Tabular
from perdure.evaluate.matrix import Metric
from perdure.workflows.bench.records import RunError

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
    """

    against: str
    watched: tuple[str, ...]
    arms: tuple[ArmLine, ...]
    failed: tuple[RunError, ...]
    computed: tuple[str, ...]
    left_out: int

    def grid(self) -> Grid:
        """Return a row for each arm, the best `acc` first."""
        names = ("acc", "acc_minus", *METRICS, "train_ratio", "train_seconds", "peak_mib", "stored_bytes")
        cells = [[getattr(line, name) for name in names] for line in self.arms]
        rows = [
            (line.arm, len(line.seeds), *(one and one.value for one in own))
            for line, own in zip(self.arms, cells, strict=True)
        ]
        return Grid(("arm", "seeds", *names), tuple(rows), f"acc_minus: acc less that of {self.against}")

    def arm(self, label: str) -> ArmLine:
        """Return the line of an arm."""
        return next(line for line in self.arms if line.arm == label)
