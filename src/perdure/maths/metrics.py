"""Metrics of continual learning, as pure functions of the score matrix.

`score[i][j]` is the score on task j after stage i; stage 0 is the base model, the others follow in the order of the
ledger. A cell that was not measured is None. `learned[j]` is the stage that learned task j first, or None for a task
that is only watched (a general ability): a watched task is in no metric.

Conventions, where the literature disagrees:

* Signed names: `bwt` and `fwt` up is good, `forgetting` and `intransigence` down is good. Every metric is a plain mean
  over tasks.
* `bwt` has the T - 1 divisor. On a stream with other stages after a task was learned (an update, an edit), the mean
  runs over every task with a later stage, so on a plain stream it is T - 1 tasks. `fwt` likewise runs over every task
  with a stage between base and its own.
* A second learn of a known task (an update) is one more stage; the task stays learned where it was learned first. Its
  gain counts in `bwt`, as any change of an old task does.
* A needed cell that is missing is an error that names it, never 0. `forgetting` takes the best of the stages that were
  measured: a stage between a task's own and the last may be missing, and is named in a note.

Each metric is a mean of terms, a term being one cell of a task, or the difference of two. `matrix_metrics` resamples
the items of a term once for both of its stages, so its intervals are paired.

Source: Lopez-Paz and Ranzato, NeurIPS 2017 (ACC, BWT, FWT); Chaudhry et al., ECCV 2018 (forgetting, intransigence).
Deviation: FWT's baseline is the base model, not a random initialisation; GEM's code divides BWT by T, we do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perdure.maths.statistics import mean_of_means

Cells = Sequence[Sequence[float | None]]  # (stages, tasks)
Learned = Sequence[int | None]  # (tasks,)
Term = tuple[int, int, int | None]  # task, stage, stage to subtract


@dataclass(frozen=True)
class Metric:
    """A metric with its interval.

    Args:
        value: The metric; None where it cannot be computed.
        low: Lower end of its interval.
        high: Upper end.
        n: Test items in use, over all tasks.
        missing: Why it cannot be computed.
        gap: The cell that was not measured, as (stage, task), where that is why.
        note: Which cells were left out, as they were not measured.
        worst: Of `bwt`, the task that lost most, and its change.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    missing: str | None = None
    gap: tuple[int, str] | None = None
    note: str | None = None
    worst: tuple[str, float] | None = None


class Undefined(ValueError):
    """A metric that cannot be computed from this matrix; the message has the reason."""


class MissingCell(Undefined):
    """A metric needs the score of `task` (an index) after `stage`, and it was not measured."""

    def __init__(self, stage: int, task: int):
        super().__init__(f"task {task} was not scored after stage {stage}; score it there first")
        self.stage, self.task = stage, task


def acc(score: Cells, learned: Learned) -> float:
    """Return the mean score of all learned tasks after the last stage, in [0, 1]; up is good."""
    return _value(score, _acc_terms(score, learned))


def bwt(score: Cells, learned: Learned) -> float:
    """Return backward transfer, the mean of R[last, j] - R[learned j, j] over tasks older than the last stage.

    Raises:
        Undefined: No task is older than the last stage (a single task, for one).
        MissingCell: A needed cell was not measured.
    """
    return _value(score, _bwt_terms(score, learned))


def forgetting(score: Cells, learned: Learned) -> float:
    """Return the mean of max over l of R[l, j] - R[last, j], stages l from learned j to before the last; down is good.

    The maximum of noisy scores is above the best true score, so with many stages forgetting of nothing is above 0. Stages
    between the two that were not measured are left out.

    Raises:
        Undefined: No task is older than the last stage.
        MissingCell: A task was not scored when it was learned, or after the last stage.
    """
    return _value(score, _forgetting_terms(score, learned))


def fwt(score: Cells, learned: Learned) -> float:
    """Return forward transfer: mean of R[learned j - 1, j] - R[0, j] over tasks not learned first; up is good.

    Raises:
        Undefined: Every task was learned at the first stage.
        MissingCell: A needed cell was not measured.
    """
    return _value(score, _fwt_terms(score, learned))


def learning_accuracy(score: Cells, learned: Learned) -> float:
    """Return the mean of R[learned j, j], the scores of tasks when they were just learned, in [0, 1]; up is good."""
    return _value(score, _learning_accuracy_terms(score, learned))


def intransigence(score: Cells, learned: Learned, single: Sequence[float | None]) -> float:
    """Return the mean of S[j] - R[learned j, j]: what the stream cost in learning; down is good.

    Args:
        score: The matrix.
        learned: The stage that learned each task.
        single: S, (tasks,): score of a model fine-tuned on that task alone; ignored for tasks that are only watched.

    Raises:
        Undefined: A learned task has no single-task score.
    """
    terms = _learning_accuracy_terms(score, learned)
    if lacking := [task for task, _, _ in terms if single[task] is None]:
        raise Undefined(f"task {lacking[0]} has no single-task score; fine-tune on it alone and score that")
    return float(np.mean([single[task] for task, _, _ in terms])) - _value(score, terms)


def matrix_metrics(
    score: Cells,
    items: Sequence[Sequence[Sequence[float] | None]],
    learned: Learned,
    *,
    rows: Sequence[Sequence[Sequence[str] | None]] | None = None,
    names: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Metric]:
    """Return every metric with its interval, by bootstrap over test items (see `mean_of_means`).

    Tasks are resampled independently; the two stages of a difference keep the same resampled items. The best stage of
    `forgetting` is chosen once, on the scores as they are: chosen again in each resample, its upward bias would count
    twice.

    Args:
        score: (stages, tasks), in [0, 1]; None where not measured.
        items: Per cell the scores of its test rows, (n,); None where not measured.
        learned: The stage that learned each task.
        rows: Per cell the hashes of its test rows. A task with several versions has several test parts; a difference is
            then taken over the rows that both stages scored, and may differ from the difference of the two cells.
        names: Task names for messages; their index if not given.
        confidence: Two-sided.
        seed: Names the resamples.
        resamples: Number of replicates.

    Raises:
        ValueError: Shapes do not fit.
    """
    _check(score, learned, items, rows)
    labels = list(names) if names is not None else [str(j) for j in range(len(learned))]
    metrics: dict[str, Metric] = {}
    for name, find in TERMS.items():
        try:
            terms = find(score, learned)
            contrasts = [_contrast(term, items, rows) for term in terms]
        except MissingCell as gap:
            reason = f"task '{labels[gap.task]}' was not scored after stage {gap.stage}"
            metrics[name] = Metric(missing=reason, gap=(gap.stage, labels[gap.task]))
        except Undefined as gap:
            metrics[name] = Metric(missing=str(gap))
        else:
            limits = (0.0 if terms[0][2] is None else -1.0, 1.0)
            value, low, high = mean_of_means(contrasts, limits, confidence, seed=seed, resamples=resamples)
            worst = None
            if name == "bwt":
                change, task = min((float(c.mean()), term[0]) for c, term in zip(contrasts, terms, strict=True))
                worst = (labels[task], change)
            note = _left_out(score, learned, labels) if name == "forgetting" else None
            metrics[name] = Metric(value, low, high, sum(map(len, contrasts)), worst=worst, note=note)
    return metrics


def _acc_terms(score: Cells, learned: Learned) -> list[Term]:
    return [(task, len(score) - 1, None) for task, _ in _tasks(score, learned)]


def _learning_accuracy_terms(score: Cells, learned: Learned) -> list[Term]:
    return [(task, stage, None) for task, stage in _tasks(score, learned)]


def _bwt_terms(score: Cells, learned: Learned) -> list[Term]:
    return [(task, len(score) - 1, stage) for task, stage in _older(score, learned)]


def _forgetting_terms(score: Cells, learned: Learned) -> list[Term]:
    last = len(score) - 1
    terms: list[Term] = []
    for task, stage in _older(score, learned):
        _cell(score, stage, task)
        measured = [i for i in range(stage, last) if not _is_missing(score[i][task])]
        terms.append((task, max(measured, key=lambda i: _cell(score, i, task)), last))
    return terms


def _left_out(score: Cells, learned: Learned, names: Sequence[str]) -> str | None:
    """Return a note on the cells that `forgetting` leaves out, as they were not measured."""
    gaps = {
        names[task]: [str(i) for i in range(stage + 1, len(score) - 1) if _is_missing(score[i][task])]
        for task, stage in _older(score, learned)
    }
    parts = [f"'{task}' after stage {', '.join(stages)}" for task, stages in gaps.items() if stages]
    return f"not scored and left out: {'; '.join(parts)}" if parts else None


def _fwt_terms(score: Cells, learned: Learned) -> list[Term]:
    later: list[Term] = [(task, stage - 1, 0) for task, stage in _tasks(score, learned) if stage > 1]
    if not later:
        raise Undefined("no task was learned after another one; learn a second task")
    return later


TERMS: dict[str, Callable[[Cells, Learned], list[Term]]] = {
    "acc": _acc_terms,
    "bwt": _bwt_terms,
    "forgetting": _forgetting_terms,
    "fwt": _fwt_terms,
    "learning_accuracy": _learning_accuracy_terms,
}


def _tasks(score: Cells, learned: Learned) -> list[tuple[int, int]]:
    """Learned tasks with their stage."""
    _check(score, learned)
    tasks = [(task, stage) for task, stage in enumerate(learned) if stage is not None]
    if not tasks:
        raise Undefined("no task was learned yet")
    return tasks


def _older(score: Cells, learned: Learned) -> list[tuple[int, int]]:
    """Tasks learned before the last stage."""
    older = [(task, stage) for task, stage in _tasks(score, learned) if stage < len(score) - 1]
    if not older:
        raise Undefined("no task is older than the last stage; learn a second task")
    return older


def _cell(score: Any, stage: int, task: int) -> Any:
    value = score[stage][task]
    if _is_missing(value):
        raise MissingCell(stage, task)
    return value


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN stands for missing in arrays


def _value(score: Cells, terms: list[Term]) -> float:
    return float(np.mean([_cell(score, i, j) - (0.0 if b is None else _cell(score, b, j)) for j, i, b in terms]))


def _contrast(term: Term, items: Any, rows: Any) -> NDArray[np.float64]:
    """Values of a term per item, (n,): its cell's items, or paired differences over rows that both stages scored."""
    task, stage, before = term
    now = np.asarray(_cell(items, stage, task), dtype=np.float64)
    if before is None:
        return now
    then = np.asarray(_cell(items, before, task), dtype=np.float64)
    if rows is None or rows[stage][task] == rows[before][task]:
        if len(now) != len(then):
            raise ValueError(
                f"task {task} has {len(then)} items after stage {before}, {len(now)} after {stage}; give `rows`"
            )
        return now - then
    place = {row: k for k, row in enumerate(rows[before][task])}
    pairs = [(k, place[row]) for k, row in enumerate(rows[stage][task]) if row in place]
    if not pairs:
        raise Undefined(f"stages {before} and {stage} scored no test row of task {task} in common")
    mine, theirs = np.array(pairs).T
    return now[mine] - then[theirs]


def _check(score: Cells, learned: Learned, *others: Any) -> None:
    """Raise ValueError unless shapes fit and every stage in `learned` exists and is not the base."""
    shape = (len(score), len(learned))
    for table in (score, *others):
        if table is not None and (len(table) != shape[0] or any(len(line) != shape[1] for line in table)):
            raise ValueError(f"score, items and rows must all be {shape[0]} stages x {shape[1]} tasks")
    wrong = [stage for stage in learned if stage is not None and not 1 <= stage < shape[0]]
    if wrong:
        raise ValueError(
            f"a task is marked as learned at stage {wrong[0]}; stages run from 1 (0 is the base) to {shape[0] - 1}"
        )
