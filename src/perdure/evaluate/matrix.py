"""The score matrix: the score of each task after each stage, as JSON for tools and as a table for people."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput
from perdure.core.keyed import seed_of
from perdure.core.records import Record, omitted, omitted_mapping
from perdure.core.tables import Grid, Tabular
from perdure.evaluate.routing import RoutingAccuracy
from perdure.ledger.records import Score
from perdure.maths import metrics
from perdure.maths.metrics import matrix_metrics

MEANING = {
    "acc": "mean score after the last stage",
    "bwt": "change of old tasks since they were learned; up is good",
    "forgetting": "best score since learned, minus score now; down is good",
    "fwt": "score before a task was learned, minus the base's; up is good",
    "learning_accuracy": "mean score when just learned",
}
WIDTH = 14  # columns of a long task name that the table shows


@dataclass(frozen=True)
class Stage(Record):
    """An entry on the way to a state.

    Args:
        entry: Its id; None where there is no ledger.
        kind: Its kind.
        task: The task that it learned.
    """

    entry: str | None
    kind: str
    task: str | None

    def learns(self, task: str) -> bool:
        """Return whether the stage learned `task`."""
        return self.kind == "learn" and self.task == task


@dataclass(frozen=True)
class Worst(Record):
    """The task that lost most since it was learned.

    Args:
        task: Its name.
        value: Its change.
    """

    task: str
    value: float


@dataclass(frozen=True)
class Metric(Record):
    """A metric of the matrix, with its interval.

    Args:
        value: The metric; None where it cannot be computed.
        low: Lower end of its interval.
        high: Upper end.
        n: Test items in use, over all tasks.
        missing: Why it cannot be computed.
        worst: Of `bwt`, the task that lost most.
        note: Which cells were left out, as they were not measured.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    missing: str | None = omitted(None)
    worst: Worst | None = omitted(None)
    note: str | None = omitted(None)

    @classmethod
    def of(cls, computed: metrics.Metric) -> "Metric":
        """Return a computed metric as a record."""
        worst = computed.worst and Worst(*computed.worst)
        return cls(computed.value, computed.low, computed.high, computed.n, computed.missing, worst, computed.note)


@dataclass(frozen=True)
class GuardColumn(Record):
    """The scores of a guard after each stage. A guard is never learned, so that no metric of the matrix counts it.

    Args:
        ability: What the guard measures.
        reference: Id of the entry that a gate compares with.
        score: Score after each stage, in [0, 1], over the rows that every measured stage has; None where not measured.
        n: Number of these rows; 0 where no stage was measured.
        blind: The reference scores no better than chance, so that a fall cannot be seen.
    """

    ability: str
    reference: str
    score: tuple[float | None, ...]
    n: int
    blind: bool = omitted(False)


Cells = Sequence[Sequence[Score | None]]  # (stages, tasks)


@dataclass(frozen=True)
class Matrix(Record, Tabular):
    """The scores by stage and task, and the metrics computed from them.

    Args:
        tasks: Names of the tasks, one per column, whatever their versions.
        stages: The entries, the base first.
        score: (stages, tasks), in [0, 1]; None where not measured.
        n: (stages, tasks): number of test rows of each cell.
        metrics: By name; see `perdure.maths.metrics`.
        test: (stages, tasks): a name for the test rows of each cell. Two cells of a column with other names were scored on
            other rows: the task was updated, or a row deleted, between them.
        guards: The guards of the workspace by name, which no metric counts.
        routing: Of scores without the task's name, how many test rows found their task after the last stage; None without a
            router, and where the tasks were named.
    """

    tasks: tuple[str, ...]
    stages: tuple[Stage, ...]
    score: tuple[tuple[float | None, ...], ...]
    n: tuple[tuple[int | None, ...], ...]
    metrics: Mapping[str, Metric]
    test: tuple[tuple[str | None, ...], ...] | None = omitted(None)
    guards: Mapping[str, GuardColumn] = omitted_mapping()
    routing: RoutingAccuracy | None = omitted(None)

    @cached_property
    def learned(self) -> list[int | None]:
        """For each task the first stage that learned it, or None; the metrics compare later stages with it."""
        return [next((i for i, stage in enumerate(self.stages) if stage.learns(name)), None) for name in self.tasks]

    def renamed(self, aliases: Mapping[str, str]) -> "Matrix":
        """Return the matrix as people see it, each renamed task under its alias.

        Args:
            aliases: Alias by name.
        """
        stages = tuple(replace(stage, task=aliases.get(stage.task or "", stage.task)) for stage in self.stages)
        metrics = {
            name: replace(one, worst=replace(one.worst, task=aliases.get(one.worst.task, one.worst.task)))
            if one.worst
            else one
            for name, one in self.metrics.items()
        }
        return replace(
            self,
            tasks=tuple(aliases.get(task, task) for task in self.tasks),
            stages=stages,
            metrics=metrics,
            routing=self.routing and self.routing.renamed(aliases),
        )

    def learned_at(self, task: str) -> int | None:
        """Return the first stage that learned `task`, or None."""
        return next((i for i, stage in enumerate(self.stages) if stage.learns(task)), None)

    def grid(self) -> Grid:
        """Return a row for each stage, with the score of each task after it."""
        stages = [f"{i} {stage.kind} {stage.task or ''}".rstrip() for i, stage in enumerate(self.stages)]
        rows = tuple((name, *scores) for name, scores in zip(stages, self.score, strict=True))
        return Grid(("after", *self.tasks), rows)

    def other_rows(self, stage: int, task: int) -> bool:
        """Return whether a cell was scored on other test rows than the newest measured cell of its task."""
        name = self.test[stage][task] if self.test else None
        return name is not None and name != self._newest_rows[task]

    @cached_property
    def _newest_rows(self) -> list[str | None]:
        """For each task the name of the test rows of its newest measured cell."""
        lines = self.test or ()
        return [
            next((line[j] for line in reversed(lines) if line[j] is not None), None) for j in range(len(self.tasks))
        ]


def build_matrix(
    tasks: Sequence[str],
    stages: Sequence[Stage],
    scores: Cells,
    *,
    parts: bool = False,
    routed: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> Matrix:
    """Return the matrix with its metrics.

    A column is a task, whatever its versions: each cell shows what was measured there, and metrics that compare two
    stages do so over the test rows that both scored. A task is learned at its first stage of kind "learn"; one that has
    none is only watched.

    Args:
        tasks: Their names, one per column.
        stages: The base first.
        scores: (stages, tasks), None where not measured.
        parts: Name the test rows of each cell too.
        routed: Whether no request names its task, for the command that scores a missing cell.
        confidence: Of the metrics' intervals, two-sided.
        seed: Names the bootstrap's resamples.
        resamples: Number of bootstrap replicates.

    Raises:
        BadInput: A task appears twice, or `scores` has another shape.
    """
    if len(set(tasks)) < len(tasks):
        raise BadInput(
            f"a task appears twice in the matrix: {list(tasks)}; give one column per task, with the scores of all versions"
        )
    if not stages or len(scores) != len(stages) or any(len(line) != len(tasks) for line in scores):
        raise BadInput(
            f"the matrix needs one line of scores per stage ({len(stages)}) with one cell per task ({len(tasks)})"
        )
    matrix = Matrix(
        tuple(tasks),
        tuple(stages),
        tuple(tuple(cell.score if cell else None for cell in line) for line in scores),
        tuple(tuple(cell.n if cell else None for cell in line) for line in scores),
        {},
        tuple(tuple(content_hash(cell.rows)[:12] if cell else None for cell in line) for line in scores)
        if parts
        else None,
    )
    computed = matrix_metrics(
        matrix.score,
        [[cell.items if cell else None for cell in line] for line in scores],
        matrix.learned,
        rows=[[cell.rows if cell else None for cell in line] for line in scores],
        names=tasks,
        confidence=confidence,
        seed=seed_of(seed, "matrix"),
        resamples=resamples,
    )
    return replace(matrix, metrics={name: _metric(one, stages, routed) for name, one in computed.items()})


def _metric(computed: metrics.Metric, stages: Sequence[Stage], routed: bool) -> Metric:
    metric = Metric.of(computed)
    if computed.gap and (entry := stages[computed.gap[0]].entry):
        how = f"perdure eval {computed.gap[1]} {'--routed ' if routed else ''}--at {entry[:12]}"
        return replace(metric, missing=f"{metric.missing}; '{how}' does it")
    return metric


@dataclass(frozen=True)
class Part:
    """The stages and the tasks of a matrix that are shown.

    Args:
        rows: Indices of the stages.
        columns: Indices of the tasks.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, matrix: Matrix, tasks: int | None = None, stages: int | None = None) -> "Part":
        """Return the newest and the worst of a matrix, in its order; all of it where it is small or nothing is left out.

        Args:
            matrix: The matrix.
            tasks: Number of tasks that are shown of a larger matrix: half of them the newest, half those that lost most.
            stages: Number of stages that are shown of a larger matrix, beside the first: the newest.
        """
        rows, columns = list(range(len(matrix.stages))), list(range(len(matrix.tasks)))
        if stages is not None and len(rows) > stages + 1:
            rows = [0, *rows[-stages:]]
        if tasks is not None and len(columns) > tasks:
            new = (tasks + 1) // 2
            rest = sorted(columns[:-new], key=lambda j: (_change_since_learned(matrix, j), j))
            columns = sorted([*rest[: tasks - new], *columns[-new:]])
        return cls(tuple(rows), tuple(columns))

    def hides(self, matrix: Matrix) -> tuple[int, int]:
        """Return how many tasks and how many stages of a matrix are not shown."""
        return len(matrix.tasks) - len(self.columns), len(matrix.stages) - len(self.rows)


def _change_since_learned(matrix: Matrix, task: int) -> float:
    """Return the newest measured score of a task less that when it was learned; 0 where one of them is missing."""
    learned = matrix.learned[task]
    scores = [line[task] for line in matrix.score]
    now = next((score for score in reversed(scores) if score is not None), None)
    then = None if learned is None else scores[learned]
    return 0.0 if now is None or then is None else now - then


def plain_text(matrix: Matrix, part: Part | None = None) -> str:
    """Return the matrix as an aligned table for a terminal: scores in percent, then metrics with interval and n.

    A star marks the cell of the task that its stage learned, a dash a cell that was not measured, an apostrophe one that was
    scored on other test rows than the newest. Guards are behind a rule.

    Args:
        matrix: The matrix.
        part: The stages and tasks of the table; None shows all. The metrics are those of all.
    """
    shown = part or Part.of(matrix)
    columns = shown.columns
    guards = list(matrix.guards.values())
    lines = [["after", *(_short(matrix.tasks[j]) for j in columns), *_guarded(map(_short, matrix.guards))]]
    some = any(matrix.other_rows(i, j) for i in shown.rows for j in columns)
    for i in shown.rows:
        stage, scores = matrix.stages[i], [matrix.score[i][j] for j in columns]
        marks = [" '"[matrix.other_rows(i, j)] * some + " *"[stage.learns(matrix.tasks[j])] for j in columns]
        cells = ["-" + mark if s is None else f"{100 * s:.1f}%{mark}" for s, mark in zip(scores, marks, strict=True)]
        behind = ["-" if (s := one.score[i]) is None else _percent(s) for one in guards]
        lines.append([f"{i} {stage.kind} {_short(stage.task or '')}".rstrip(), *cells, *_guarded(behind)])
    if shown.hides(matrix)[1]:
        learned = [None if (at := matrix.learned[j]) is None else matrix.score[at][j] for j in columns]
        end = " " * (1 + some)
        at_first = ("-" + end if s is None else f"{100 * s:.1f}%{end}" for s in learned)
        lines.append(["when learned", *at_first, *_guarded("" for _ in guards)])
    counts = (_span([line[j] for line in matrix.n]) + " " * (1 + some) for j in columns)
    lines.append(["test items", *counts, *_guarded(str(one.n or "-") for one in guards)])
    summary = [_metric_line(name, matrix.metrics[name]) for name in MEANING]
    if worst := matrix.metrics["bwt"].worst:
        summary.append(f"worst change: {worst.task} {_points(worst.value)} since it was learned")
    summary += [f"{name}: {note}" for name in MEANING if (note := matrix.metrics[name].note)]
    if matrix.routing:
        summary.append(f"routing: {matrix.routing.line}")
    if some:
        summary.append("' scored on other test rows than the newest; differences are over the rows that both have")
    return "\n".join([*_aligned(lines), "", *summary]) + "\n"


def _guarded(cells: Iterable[str]) -> list[str]:
    """Return the cells of guards behind a rule; nothing where there are no guards."""
    behind = list(cells)
    return ["|", *behind] if behind else []


def _metric_line(name: str, metric: Metric) -> str:
    if metric.value is None or metric.low is None or metric.high is None:
        return f"{name:<18} {'-':>11}  {metric.missing}"
    shown = _percent if name in ("acc", "learning_accuracy") else _points
    interval = f"[{100 * metric.low:.1f}, {100 * metric.high:.1f}]"
    return f"{name:<18} {shown(metric.value):>11}  {interval:<15} n={metric.n:<6} {MEANING[name]}"


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]


def _span(counts: Sequence[int | None]) -> str:
    known = sorted({n for n in counts if n is not None})
    return "-" if not known else f"{known[0]}" if len(known) == 1 else f"{known[0]}-{known[-1]}"


def _short(name: str) -> str:
    return name if len(name) <= WIDTH else name[: WIDTH - 1] + "…"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(share: float) -> str:
    return f"{100 * share + 0.0:+.1f} points"
