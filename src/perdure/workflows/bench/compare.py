"""What a benchmark's result files say, arm by arm: scores pooled over seeds, paired differences, time, memory, bytes."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from perdure.evaluate.matrix import Matrix, Metric
from perdure.maths.metrics import matrix_metrics
from perdure.maths.statistics import mean_of_means
from perdure.report.records import Record

BASELINE = "naive"  # whose train time is 1


def compare(results: Sequence[Record], against: str = BASELINE) -> Record:
    """Return the comparison that tables are made of.

    Args:
        results: Result files of one suite, failed runs among them.
        against: The arm that ACC is compared with, test row by test row.

    Returns:
        "against"; "arms", the best ACC first, each with "arm", "seeds", the metrics of the matrix and "acc_minus"
        (`{"value", "low", "high", "n"}`, n test rows), "acc_by_seed", and "train_ratio", "train_seconds", "peak_mib",
        "stored_bytes" (median as "value", least and most over seeds as "low" and "high", n seeds), None where nothing can
        be compared, "watched" by name (`{"before", "after", "value", "low", "high", "n"}`, value being after - before);
        "watched", the names of all that were; "computed", dtypes and devices of the runs; "failed", each with "arm",
        "seed", "error"; "left_out", how many results of
        an arm are of an earlier recipe than its newest.
    """
    arms = by_arm(results)
    plain = {run["arm_hash"] for run in arms.get(BASELINE, [])}
    baseline = [run for runs in arms.values() for run in runs if run["arm_hash"] in plain]  # under any label
    lines = [_line(name, runs, arms.get(against, []), baseline) for name, runs in arms.items()]
    return {
        "against": against,
        "watched": list(
            dict.fromkeys(name for runs in arms.values() for run in runs for name in run.get("watched", ()))
        ),
        "arms": sorted(lines, key=lambda line: -line["acc"]["value"]),
        "failed": [{key: r[key] for key in ("arm", "seed", "error")} for r in results if r.get("error")],
        "computed": sorted({_computed(run) for runs in arms.values() for run in runs}),
        "left_out": sum(not r.get("error") for r in results) - sum(map(len, arms.values())),
    }


def by_arm(results: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the runs of each arm's newest recipe that did not fail, by seed."""
    good = [result for result in results if not result.get("error")]
    arms: dict[str, list[Record]] = {}
    for name in dict.fromkeys(result["arm"] for result in good):
        own = [result for result in good if result["arm"] == name]
        newest = max(own, key=lambda result: str(result["time"]))["arm_hash"]
        arms[name] = sorted((r for r in own if r["arm_hash"] == newest), key=lambda r: r["seed"])
    return arms


def mean_matrix(runs: Sequence[Record]) -> Matrix:
    """Return the matrix of one arm, averaged over its runs: the same stages and tasks, no single entries."""
    matrices = [Matrix.from_json(run["matrix"]) for run in runs]
    first = matrices[0]
    cells = [[(i, j) for j in range(len(first.tasks))] for i in range(len(first.stages))]
    return replace(
        first,
        stages=tuple(replace(stage, entry=None) for stage in first.stages),
        score=tuple(tuple(_mean([one.score[i][j] for one in matrices]) for i, j in line) for line in cells),
        n=tuple(tuple(sum(one.n[i][j] or 0 for one in matrices) for i, j in line) for line in cells),
    )


def _line(name: str, runs: list[Record], against: list[Record], baseline: list[Record]) -> Record:
    return {
        "arm": name,
        "seeds": [run["seed"] for run in runs],
        **_pooled(runs),
        "acc_by_seed": {str(run["seed"]): run["matrix"]["metrics"]["acc"]["value"] for run in runs},
        "acc_minus": None if runs == against else paired(runs, against),
        "watched": {name: _drift([run["watched"][name] for run in runs]) for name in runs[0].get("watched", ())},
        "train_ratio": _spread([_train(run) / _train(base) for run in runs for base in _beside(run, baseline)]),
        "train_seconds": _spread([_train(run) for run in runs]),
        "peak_mib": _spread([run["peak_mib"] for run in runs]),
        "stored_bytes": _spread([sum(run["stored"].values()) for run in runs]),
    }


def _pooled(runs: Sequence[Record]) -> Record:
    """Return the matrix metrics over all runs, as if each seed's tasks were tasks of one longer matrix."""
    score, items, learned = [], [], []
    for stage in range(len(runs[0]["matrix"]["stages"])):
        score.append([cell for run in runs for cell in run["matrix"]["score"][stage]])
        items.append([run["items"][task]["scores"][stage] for run in runs for task in run["matrix"]["tasks"]])
    for run in runs:
        learned += Matrix.from_json(run["matrix"]).learned
    return {name: Metric.of(found).to_json() for name, found in matrix_metrics(score, items, learned).items()}


def paired(ours: Sequence[Record], theirs: Sequence[Record]) -> Record | None:
    """Return the mean over seeds and tasks of the difference of final scores on the rows that both scored.

    Args:
        ours: Runs of one arm, as `by_arm` returns them.
        theirs: Runs of another, which is subtracted.

    Returns:
        `{"value", "low", "high", "n"}`, n test rows; None where no seed is shared.
    """
    groups = [gap for a, b in _pairs(ours, theirs) for task in a["items"] for gap in [_gap(a, b, task)] if len(gap)]
    if not groups:
        return None
    value, low, high = mean_of_means(groups, (-1.0, 1.0))
    return {"value": value, "low": low, "high": high, "n": sum(map(len, groups))}


def watched_minus(ours: Sequence[Record], theirs: Sequence[Record]) -> Record:
    """Return by name what ours score on a watched task after all tasks, less theirs: a row's is its mean over shared seeds."""
    pairs = [(a["watched"], b["watched"]) for a, b in _pairs(ours, theirs) if "watched" in a and "watched" in b]
    found = {}
    for name in pairs[0][0] if pairs else ():
        mine, other = ([one[name] for one in side] for side in zip(*pairs, strict=True))
        rows = _shared_rows([*mine, *other])
        found[name] = _told(_by_row(mine, "after", rows) - _by_row(other, "after", rows))
    return found


def _drift(watched: Sequence[Record]) -> Record:
    """Return what was scored on a watched task before and after, and the difference: a row's is its mean over the runs."""
    before, after = (_by_row(watched, key) for key in ("before", "after"))
    return {"before": float(before.mean()), "after": float(after.mean()), **_told(after - before)}


def _by_row(watched: Sequence[Record], key: str, rows: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Return what each row scored, in the mean over the runs."""
    order = _shared_rows(watched) if rows is None else rows
    found = [dict(zip(one["rows"], one[key], strict=True)) for one in watched]
    return np.array([np.mean([scores[row] for scores in found]) for row in order], dtype=np.float64)


def _shared_rows(watched: Sequence[Record]) -> list[str]:
    """Return the rows that every run scored: another version of a data file may have others."""
    return [row for row in watched[0]["rows"] if all(row in one["rows"] for one in watched)]


def _told(gaps: NDArray[np.float64]) -> Record:
    value, low, high = mean_of_means([gaps], (-1.0, 1.0))
    return {"value": value, "low": low, "high": high, "n": len(gaps)}


def _gap(a: Record, b: Record, task: str) -> NDArray[np.float64]:
    other = b["items"].get(task, {"rows": [], "scores": [[]]})
    theirs = dict(zip(other["rows"], other["scores"][-1], strict=True))
    mine = zip(a["items"][task]["rows"], a["items"][task]["scores"][-1], strict=True)
    return np.array([item - theirs[row] for row, item in mine if row in theirs], dtype=np.float64)


def _pairs(ours: Sequence[Record], theirs: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Return the runs of both arms with the same seed."""
    by_seed = {run["seed"]: run for run in theirs}
    return [(run, by_seed[run["seed"]]) for run in ours if run["seed"] in by_seed]


def _beside(run: Record, baseline: Sequence[Record]) -> list[Record]:
    """Return the run of the baseline, if there is one, that a run's time is measured by: of the same seed, the last before it.

    A machine is not as fast every day. Where none was before it, it is the first after it.
    """
    fit = [base for base in baseline if base["seed"] == run["seed"] and _alike(run, base)]
    fit.sort(key=lambda base: str(base["time"]))  # all in UTC
    before = [base for base in fit if str(base["time"]) <= str(run["time"])]
    return before[-1:] or fit[:1]


def _alike(a: Record, b: Record) -> bool:
    """Say whether the times of two runs can be compared: the same device and threads, as many processes beside them."""
    return all(a["machine"].get(key) == b["machine"].get(key) for key in ("device", "gpu", "threads", "dtype")) and (
        a["workers"] == b["workers"]
    )


def _computed(run: Record) -> str:
    """Return what a run's numbers were computed in, and on."""
    machine = run["machine"]
    return f"{machine.get('dtype') or 'unknown dtype'} on {machine.get('gpu') or machine['device']}"


def _train(run: Record) -> float:
    """Return the seconds spent on training: the processor's where there is no accelerator, which other work raises less."""
    known = "train_cpu_seconds" if run["machine"]["device"] == "cpu" else "train_seconds"
    return float(sum(task.get(known, task["train_seconds"]) for task in run["tasks"]))


def _spread(values: Sequence[float]) -> Record | None:
    return {"value": median(values), "low": min(values), "high": max(values), "n": len(values)} if values else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
