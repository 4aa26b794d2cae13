"""The result file of a benchmark's run, as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import JsonObject, Record, omitted
from perdure.evaluate.matrix import Matrix
from perdure.ledger.records import RowsRun
from perdure.workflows.bench.guard_records import RunGuard


@dataclass(frozen=True)
class TaskItems(Record):
    """The scores of a task's test rows.

    Args:
        rows: The first 16 digits of each row's hash.
        scores: (stages, rows), in [0, 1]; None for a stage at which the task was not scored.
    """

    rows: tuple[str, ...]
    scores: tuple[tuple[float, ...] | None, ...]

    @property
    def final(self) -> list[tuple[str, float]]:
        """Each row and its score after the last stage; empty if it was not measured."""
        return list(zip(self.rows, self.scores[-1] or (), strict=True)) if self.scores[-1] is not None else []


@dataclass(frozen=True)
class WatchedItems(Record):
    """The scores of the rows of a watched task.

    Args:
        rows: The first 16 digits of each row's hash.
        before: The base model's score of each row.
        after: The score of each row after the last task.
    """

    rows: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True)
class LeftOut(Record):
    """The rows of a task that were left out before the draw, since training would cut them.

    Args:
        train: Number of train rows left out.
        train_of: Number of train rows there are.
        test: Number of test rows left out.
        test_of: Number of test rows there are.
    """

    train: int
    train_of: int
    test: int
    test_of: int


@dataclass(frozen=True, kw_only=True)
class TaskCost(Record):
    """What the learn of a task cost, and what the methods did.

    Args:
        task: Name of the task.
        train_seconds: Wall time of training.
        train_cpu_seconds: The processor's seconds of it; None in results of an earlier version.
        eval_seconds: Wall time of scoring.
        tokens: Tokens that ran forward in training.
        warnings: What the user should know.
        updates: Number of updates.
        heartbeats: By method the mean of each number of its heartbeats.
        rows: The rows that ran in the updates; None in results of an earlier version.
    """

    task: str
    train_seconds: float
    train_cpu_seconds: float | None = omitted(None)
    eval_seconds: float
    tokens: int
    warnings: tuple[str, ...]
    updates: int
    heartbeats: Mapping[str, Mapping[str, float]]
    rows: RowsRun | None = omitted(None)


@dataclass(frozen=True)
class StoredBytes(Record):
    """The bytes that the last state needs in addition to the base model.

    Args:
        weights: Of the weights that were learned.
        memory_rows: Of the text in memory.
        memory_columns: Of the columns of that text.
        method_state: Of the methods' state.
    """

    weights: int
    memory_rows: int
    memory_columns: int
    method_state: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.memory_rows + self.memory_columns + self.method_state


@dataclass(frozen=True, kw_only=True)
class Machine(Record):
    """What times and memory depend on.

    Args:
        device: The device of the model, in torch's words.
        threads: Number of threads.
        dtype: Dtype of the frozen weights; None in results of an earlier version.
        gpu: Name of the GPU.
        gpu_peak_mib: The most memory in use on it.
        processor: Kind of the processor.
        python: Version of Python.
    """

    device: str
    threads: int
    dtype: str | None = omitted(None)
    gpu: str | None = omitted(None)
    gpu_peak_mib: float | None = omitted(None)
    processor: str
    python: str


@dataclass(frozen=True)
class RoutedItems(Record):
    """What a run scores after its last task where no request names its task.

    Args:
        items: By task the score of each test row.
        found: By task whether each row was sent to its own task, as 1 or 0; tasks that the router does not know are left out.
    """

    items: Mapping[str, tuple[float, ...]]
    found: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class RunMeasures(Record):
    """What a run measured.

    Args:
        matrix: The score matrix.
        items: By task the scores of its test rows.
        watched: By name the scores of what was watched; None if nothing was.
        guards: By name the scores of the guards; None without guards.
        tasks: The cost of each learn, in order.
        stored: The bytes of the last state.
        machine: The machine.
        software: Version of each package that matters.
        peak_mib: The most memory of the process.
        cpu_seconds: The processor's seconds of the process.
        left_out: By task the rows that were left out before the draw; None where rows that are too long are cut.
        routed: Scores after the last task where no request names its task; None without a router.
    """

    matrix: Matrix
    items: Mapping[str, TaskItems]
    watched: Mapping[str, WatchedItems] | None = omitted(None)
    guards: Mapping[str, RunGuard] | None = omitted(None)
    tasks: tuple[TaskCost, ...]
    stored: StoredBytes
    machine: Machine
    software: Mapping[str, str]
    peak_mib: float
    cpu_seconds: float
    left_out: Mapping[str, LeftOut] | None = omitted(None)
    routed: RoutedItems | None = omitted(None)


@dataclass(frozen=True, kw_only=True)
class RunInfo(Record):
    """What a result file holds of every run.

    Args:
        suite: Name of the suite.
        suite_hash: Its identity.
        model: Its model.
        arm: Label of the arm.
        arm_hash: Identity of the recipe as written.
        seed: The seed.
        key: Identity of suite, recipe as written, and seed.
        time: When the run ended, in UTC.
        workers: Number of runs at the same time.
        wall_seconds: Wall time of the process.
        written: The recipe as written, without defaults.
        recipe: The whole recipe.
    """

    suite: str
    suite_hash: str
    model: str
    arm: str
    arm_hash: str
    seed: int
    key: str
    time: str
    workers: int
    wall_seconds: float
    written: JsonObject
    recipe: JsonObject


@dataclass(frozen=True, kw_only=True)
class FailedRun(RunInfo):
    """A run that failed.

    Args:
        error: Why, in words.
    """

    error: str


@dataclass(frozen=True, kw_only=True)
class FinishedRun(RunMeasures, RunInfo):  # in this order its JSON begins with the fields of RunInfo
    """A run that finished."""

    @property
    def train_seconds(self) -> float:
        """Seconds of training: the processor's if there is no accelerator, as other work raises them less."""
        cpu = self.machine.device == "cpu"
        return float(
            sum(
                task.train_cpu_seconds if cpu and task.train_cpu_seconds is not None else task.train_seconds
                for task in self.tasks
            )
        )

    @property
    def rows(self) -> RowsRun | None:
        """The rows that ran in the updates of all tasks; None if that of a task is not known."""
        known = [task.rows for task in self.tasks if task.rows]
        if not known or len(known) < len(self.tasks):
            return None
        return RowsRun(sum(r.new for r in known), sum(r.drawn for r in known), sum(r.forwards for r in known))


Run = FinishedRun | FailedRun


@dataclass(frozen=True)
class RunName(Record):
    """Names a run among those of a call.

    Args:
        arm: Label of the arm.
        seed: The seed.
    """

    arm: str
    seed: int


@dataclass(frozen=True)
class RunError(RunName):
    """A run that failed.

    Args:
        error: Why, in words.
    """

    error: str


@dataclass(frozen=True)
class BenchResult(Record):
    """The runs of a call.

    Args:
        ran: Those that finished now.
        kept: Those that had finished before.
        failed: Those that failed.
    """

    ran: tuple[RunName, ...]
    kept: tuple[RunName, ...]
    failed: tuple[RunError, ...]
