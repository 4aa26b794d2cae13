"""Compare the runs of a benchmark, arm by arm: scores pooled over seeds, paired differences, time, memory, bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from perdure.evaluate.matrix import Matrix, Metric
from perdure.maths.metrics import matrix_metrics
from perdure.maths.statistics import mean_of_means
from perdure.workflows.bench.compare_guards import guard_changes, guards_minus, worst_guard
from perdure.workflows.bench.comparison import ArmLine, BenchComparison, Estimate, WatchedChange
from perdure.workflows.bench.records import FailedRun, FinishedRun, Run, RunError, WatchedItems

BASELINE = "naive"  # whose train time is 1


def compare(results: Sequence[Run], against: str = BASELINE) -> BenchComparison:
    """Return the comparison that tables are made of.

    Args:
        results: Results of one suite, failed runs among them.
        against: The arm that ACC is compared with, test row by test row.
    """
    arms = by_arm(results)
    plain = {run.arm_hash for run in arms.get(BASELINE, [])}
    baseline = [run for runs in arms.values() for run in runs if run.arm_hash in plain]  # under any label
    lines = [_line(name, runs, arms.get(against, []), baseline) for name, runs in arms.items()]
    failed = tuple(RunError(r.arm, r.seed, r.error) for r in results if isinstance(r, FailedRun))
    return BenchComparison(
        against=against,
        watched=tuple(dict.fromkeys(name for runs in arms.values() for run in runs for name in run.watched or ())),
        arms=tuple(sorted(lines, key=lambda line: -(line.acc.value or 0.0))),
        failed=failed,
        computed=tuple(sorted({_computed(run) for runs in arms.values() for run in runs})),
        left_out=len(results) - len(failed) - sum(map(len, arms.values())),
        guards=tuple(dict.fromkeys(name for line in lines for name in line.guards)),
        too_long=next(
            (run.left_out for runs in arms.values() for run in runs if run.left_out), {}
        ),  # of all runs the same
    )


def by_arm(results: Sequence[Run]) -> dict[str, list[FinishedRun]]:
    """Return the runs of each arm's newest recipe that did not fail, by seed."""
    good = [result for result in results if isinstance(result, FinishedRun)]
    arms: dict[str, list[FinishedRun]] = {}
    for name in dict.fromkeys(result.arm for result in good):
        own = [result for result in good if result.arm == name]
        newest = max(own, key=lambda result: result.time).arm_hash
        arms[name] = sorted((r for r in own if r.arm_hash == newest), key=lambda r: r.seed)
    return arms


def mean_matrix(runs: Sequence[FinishedRun]) -> Matrix:
    """Return the matrix of one arm, averaged over its runs: the same stages and tasks, no single entries."""
    matrices = [run.matrix for run in runs]
    first = matrices[0]
    cells = [[(i, j) for j in range(len(first.tasks))] for i in range(len(first.stages))]
    return replace(
        first,
        stages=tuple(replace(stage, entry=None) for stage in first.stages),
        score=tuple(tuple(_mean([one.score[i][j] for one in matrices]) for i, j in line) for line in cells),
        n=tuple(tuple(sum(one.n[i][j] or 0 for one in matrices) for i, j in line) for line in cells),
    )


def _line(name: str, runs: list[FinishedRun], against: list[FinishedRun], baseline: list[FinishedRun]) -> ArmLine:
    pooled = _pooled(runs)
    return ArmLine(
        arm=name,
        seeds=tuple(run.seed for run in runs),
        acc=pooled["acc"],
        bwt=pooled["bwt"],
        forgetting=pooled["forgetting"],
        fwt=pooled["fwt"],
        learning_accuracy=pooled["learning_accuracy"],
        acc_by_seed={str(run.seed): run.matrix.metrics["acc"].value for run in runs},
        acc_minus=None if runs == against else paired(runs, against),
        watched={name: _change([(run.watched or {})[name] for run in runs]) for name in runs[0].watched or ()},
        train_ratio=_range(
            [run.train_seconds / base.train_seconds for run in runs for base in _comparable(run, baseline)]
        ),
        train_seconds=_range([run.train_seconds for run in runs]),
        peak_mib=_range([run.peak_mib for run in runs]),
        stored_bytes=_range([run.stored.total for run in runs]),
        guards=guard_changes(runs),
        worst_guard=worst_guard(runs),
        guards_minus={} if runs == against else guards_minus(_pairs(runs, against)),
        rows_new=_range([run.rows.new for run in runs if run.rows]),
        rows_drawn=_range([run.rows.drawn for run in runs if run.rows]),
        forwards=_range([run.rows.forwards for run in runs if run.rows]),
        acc_routed=_mean_share([items for run in runs if run.routed for items in run.routed.items.values()]),
        routing=_mean_share([found for run in runs if run.routed for found in run.routed.found.values()]),
    )


def _mean_share(groups: Sequence[Sequence[float]]) -> Estimate | None:
    """Return the mean over tasks and seeds of the mean over rows; None without rows."""
    arrays = [np.array(group, dtype=np.float64) for group in groups if group]
    return Estimate(*mean_of_means(arrays, (0.0, 1.0)), sum(map(len, arrays))) if arrays else None


def _pooled(runs: Sequence[FinishedRun]) -> dict[str, Metric]:
    """Return the matrix metrics over all runs, as if each seed's tasks were tasks of one longer matrix."""
    stages = range(len(runs[0].matrix.stages))
    score = [[cell for run in runs for cell in run.matrix.score[stage]] for stage in stages]
    items = [[run.items[task].scores[stage] for run in runs for task in run.matrix.tasks] for stage in stages]
    learned = [stage for run in runs for stage in run.matrix.learned]
    return {name: Metric.of(found) for name, found in matrix_metrics(score, items, learned).items()}


def paired(ours: Sequence[FinishedRun], theirs: Sequence[FinishedRun]) -> Estimate | None:
    """Return the mean over seeds and tasks of the difference of final scores on the rows that both scored.

    Args:
        ours: Runs of one arm, as `by_arm` returns them.
        theirs: Runs of another, which is subtracted.

    Returns:
        The difference, n test rows; None if no seed is shared.
    """
    groups = [gap for a, b in _pairs(ours, theirs) for task in a.items for gap in [_gap(a, b, task)] if len(gap)]
    if not groups:
        return None
    value, low, high = mean_of_means(groups, (-1.0, 1.0))
    return Estimate(value, low, high, sum(map(len, groups)))


def watched_minus(ours: Sequence[FinishedRun], theirs: Sequence[FinishedRun]) -> dict[str, Estimate]:
    """Return by name what ours score on a watched task after all tasks, less theirs: a row's is its mean over shared seeds."""
    pairs = [(a.watched, b.watched) for a, b in _pairs(ours, theirs) if a.watched is not None and b.watched is not None]
    found = {}
    for name in pairs[0][0] if pairs else ():
        mine, other = [a[name] for a, _ in pairs], [b[name] for _, b in pairs]
        rows = _shared_rows([*mine, *other])
        found[name] = _estimate(_after(mine, rows) - _after(other, rows))
    return found


def _change(watched: Sequence[WatchedItems]) -> WatchedChange:
    """Return the mean scores on a watched task before and after, and the difference: a row's is its mean over the runs."""
    rows = _shared_rows(watched)
    before, after = (
        _by_row([dict(zip(one.rows, one.before, strict=True)) for one in watched], rows),
        _after(watched, rows),
    )
    gap = _estimate(after - before)
    return WatchedChange(float(before.mean()), float(after.mean()), gap.value, gap.low, gap.high, gap.n)


def _after(watched: Sequence[WatchedItems], rows: Sequence[str]) -> NDArray[np.float64]:
    return _by_row([dict(zip(one.rows, one.after, strict=True)) for one in watched], rows)


def _by_row(scores: Sequence[Mapping[str, float]], rows: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean score of each row over the runs."""
    return np.array([np.mean([one[row] for one in scores]) for row in rows], dtype=np.float64)


def _shared_rows(watched: Sequence[WatchedItems]) -> list[str]:
    """Return the rows that every run scored: another version of a data file may have others."""
    return [row for row in watched[0].rows if all(row in one.rows for one in watched)]


def _estimate(gaps: NDArray[np.float64]) -> Estimate:
    value, low, high = mean_of_means([gaps], (-1.0, 1.0))
    return Estimate(value, low, high, len(gaps))


def _gap(a: FinishedRun, b: FinishedRun, task: str) -> NDArray[np.float64]:
    """Return the difference of the final scores on the rows of a task that both runs scored."""
    theirs = dict(b.items[task].final) if task in b.items else {}
    return np.array([item - theirs[row] for row, item in a.items[task].final if row in theirs], dtype=np.float64)


def _pairs(ours: Sequence[FinishedRun], theirs: Sequence[FinishedRun]) -> list[tuple[FinishedRun, FinishedRun]]:
    """Return the runs of both arms with the same seed."""
    by_seed = {run.seed: run for run in theirs}
    return [(run, by_seed[run.seed]) for run in ours if run.seed in by_seed]


def _comparable(run: FinishedRun, baseline: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Return the baseline's run, if there is one, that a run's time is compared with: of the same seed, the last before it.

    A machine is not as fast every day. If none was before it, it is the first after it.
    """
    fit = [base for base in baseline if base.seed == run.seed and _alike(run, base)]
    fit.sort(key=lambda base: base.time)  # all in UTC
    before = [base for base in fit if base.time <= run.time]
    return before[-1:] or fit[:1]


def _alike(a: FinishedRun, b: FinishedRun) -> bool:
    """Return whether the times of two runs can be compared: the same device, threads and number of runs at once."""

    def conditions(run: FinishedRun) -> tuple[object, ...]:
        return run.machine.device, run.machine.gpu, run.machine.threads, run.machine.dtype, run.workers

    return conditions(a) == conditions(b)


def _computed(run: FinishedRun) -> str:
    """Return what a run's numbers were computed in, and on."""
    machine = run.machine
    return f"{machine.dtype or 'unknown dtype'} on {machine.gpu or machine.device}"


def _range(values: Sequence[float]) -> Estimate | None:
    return Estimate(median(values), min(values), max(values), len(values)) if values else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
