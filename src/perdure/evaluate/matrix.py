"""The score matrix: what the model could do on each task after each stage, as JSON for tools and a table for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput
from perdure.core.keyed import seed_of
from perdure.ledger.records import Score
from perdure.maths.metrics import matrix_metrics

Matrix = dict[str, Any]
MEANING = {
    "acc": "mean score after the last stage",
    "bwt": "change of old tasks since they were learned; up is good",
    "forgetting": "best score since learned, minus score now; down is good",
    "fwt": "score before a task was learned, minus the base's; up is good",
    "learning_accuracy": "mean score when just learned",
}
WIDTH = 14  # columns of a long task name that the table shows


def build_matrix(
    tasks: Sequence[Mapping[str, Any]],
    stages: Sequence[Mapping[str, Any]],
    records: Sequence[Sequence[Score | None]],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> Matrix:
    """Return the matrix JSON: `{"tasks", "stages", "score", "n", "metrics"}`.

    A column is a task, whatever its versions: each cell shows what was measured there, and metrics that compare two
    stages do so over the test rows that both scored. A task is learned at its first stage of kind "learn"; one that has
    none is only watched.

    Args:
        tasks: `{"name": ...}` each, one per column; other keys are ignored.
        stages: `{"entry", "kind", "task"}` each, the base first; other keys are ignored.
        records: (stages, tasks) scores, None where not measured.
        confidence: Of the metrics' intervals, two-sided.
        seed: Names the bootstrap's resamples.
        resamples: Number of bootstrap replicates.

    Raises:
        BadInput: A task appears twice, or `records` has another shape.
    """
    names = [task["name"] for task in tasks]
    if len(set(names)) < len(names):
        raise BadInput(
            f"a task appears twice in the matrix: {names}; give one column per task, with the scores of all versions"
        )
    if not stages or len(records) != len(stages) or any(len(line) != len(names) for line in records):
        raise BadInput(
            f"the matrix needs one line of records per stage ({len(stages)}) with one cell per task ({len(names)})"
        )
    matrix: Matrix = {
        "tasks": names,
        "stages": [{key: stage.get(key) for key in ("entry", "kind", "task")} for stage in stages],
        "score": _each(records, "score"),
        "n": _each(records, "n"),
    }
    matrix["metrics"] = matrix_metrics(
        matrix["score"],
        _each(records, "items"),
        learned_stages(matrix),
        rows=_each(records, "rows"),
        names=names,
        confidence=confidence,
        seed=seed_of(seed, "matrix"),
        resamples=resamples,
    )
    for metric in matrix["metrics"].values():
        if (cell := metric.pop("cell", None)) and (entry := stages[cell["stage"]].get("entry")):
            metric["missing"] += f"; 'perdure eval {cell['task']} --at {entry[:12]}' does it"
    return matrix


def named_rows(records: Sequence[Sequence[Score | None]]) -> list[list[str | None]]:
    """Return a name for the test rows of each cell, which `plain_text` and the report take from the matrix as "test".

    Two cells of a column with other names were scored on other rows: the task was updated, or a row deleted, between them.
    """
    return [[content_hash(record.rows)[:12] if record else None for record in line] for line in records]


def learned_stages(matrix: Mapping[str, Any]) -> list[int | None]:
    """Return for each task the first stage that learned it, or None."""
    first: dict[str, int] = {}
    for i, stage in enumerate(matrix["stages"]):
        if stage["kind"] == "learn":
            first.setdefault(stage["task"], i)
    return [first.get(name) for name in matrix["tasks"]]


def plain_text(matrix: Mapping[str, Any]) -> str:
    """Return the matrix as an aligned table for a terminal: scores in percent, then metrics with interval and n.

    A star marks the cell of the task that its stage learned, a dash a cell that was not measured, an apostrophe one that was
    scored on other test rows than the newest.
    """
    lines = [["after", *map(_short, matrix["tasks"])]]
    some = any(other_rows(matrix, i, j) for i in range(len(matrix["stages"])) for j in range(len(matrix["tasks"])))
    for i, (stage, scores) in enumerate(zip(matrix["stages"], matrix["score"], strict=True)):
        learned = [stage["kind"] == "learn" and stage["task"] == name for name in matrix["tasks"]]
        marks = [" '"[other_rows(matrix, i, j)] * some + " *"[own] for j, own in enumerate(learned)]
        cells = ["-" + mark if s is None else f"{100 * s:.1f}%{mark}" for s, mark in zip(scores, marks, strict=True)]
        lines.append([f"{i} {stage['kind']} {_short(stage['task'] or '')}".rstrip(), *cells])
    lines.append(["test items", *(_span(column) + " " * (1 + some) for column in zip(*matrix["n"], strict=True))])
    metrics = [_metric_line(name, matrix["metrics"][name]) for name in MEANING]
    worst = matrix["metrics"]["bwt"].get("worst")
    if worst:
        metrics.append(f"worst change: {worst['task']} {_points(worst['value'])} since it was learned")
    if some:
        metrics.append("' scored on other test rows than the newest; differences are over the rows that both have")
    return "\n".join([*_aligned(lines), "", *metrics]) + "\n"


def other_rows(matrix: Mapping[str, Any], stage: int, task: int) -> bool:
    """Say whether a cell was scored on other test rows than the newest measured cell of its task."""
    named = [line[task] for line in matrix.get("test", ()) if line[task] is not None]
    return bool(named) and matrix["test"][stage][task] not in (None, named[-1])


def _metric_line(name: str, metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return f"{name:<18} {'-':>11}  {metric['missing']}"
    shown = _percent if name in ("acc", "learning_accuracy") else _points
    interval = f"[{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"
    return f"{name:<18} {shown(metric['value']):>11}  {interval:<15} n={metric['n']:<6} {MEANING[name]}"


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]


def _each(records: Sequence[Sequence[Score | None]], key: str) -> list[list[Any]]:
    return [[getattr(record, key) if record else None for record in line] for line in records]


def _span(counts: Sequence[int | None]) -> str:
    known = sorted({n for n in counts if n is not None})
    return "-" if not known else f"{known[0]}" if len(known) == 1 else f"{known[0]}-{known[-1]}"


def _short(name: str) -> str:
    return name if len(name) <= WIDTH else name[: WIDTH - 1] + "…"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(share: float) -> str:
    return f"{100 * share + 0.0:+.1f} points"
