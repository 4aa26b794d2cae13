"""Whether an arm of a benchmark stays flat over its stream, from result files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perdure.maths.flatness import TaskCourse, Trend, cost_trend, ratio_trend, retention
from perdure.workflows.bench.compare import by_arm
from perdure.workflows.bench.records import FinishedRun, Run

FEWEST = 5  # tasks of a stage in the trend of a ratio: the mean over fewer is that of single tasks


@dataclass(frozen=True)
class FlatArm:
    """What an arm does over the stages of its stream.

    Args:
        arm: Its label.
        seeds: The seeds of its runs.
        retention: What a task's score changes after it was learned; None where no task was scored again.
        ratio: What ACC changes, in shares of the reference's, on the seeds that both have; None without a reference, or with
            fewer than two stages of at least `FEWEST` tasks at which both scored every task so far.
        shares: ACC in shares of the reference's, by the number of tasks learned.
        accuracy: ACC by the number of tasks learned, where every task so far was scored.
        seconds: What the seconds of training change from learn to learn, in shares of their mean.
        seconds_per_token: Likewise of a token that ran forward.
    """

    arm: str
    seeds: tuple[int, ...]
    retention: Trend | None
    ratio: Trend | None
    shares: dict[int, float]
    accuracy: dict[int, float]
    seconds: Trend
    seconds_per_token: Trend


def flat_arms(results: Sequence[Run], reference: str = "joint", *, resamples: int = 1000) -> list[FlatArm]:
    """Return what each arm does over the stages of its stream, the best retention first.

    Args:
        results: Results of one suite of at least three tasks.
        reference: The arm whose ACC is 1.
        resamples: Number of bootstrap replicates.
    """
    arms = by_arm(results)
    lines = [_line(name, runs, arms.get(reference, []), resamples) for name, runs in arms.items()]
    return sorted(lines, key=lambda line: -(line.retention.change if line.retention else -np.inf))


def courses_of(run: FinishedRun) -> list[TaskCourse]:
    """Return the scores of each task of a run, from the first stage since its learn at which it was scored."""
    found = []
    for task, learned in zip(run.matrix.tasks, run.matrix.learned, strict=True):
        scores = run.items[task].scores
        stages = tuple(s for s in range(learned or 1, len(scores)) if scores[s] is not None)
        found.append(TaskCourse(task, stages[0], stages, np.array([scores[s] for s in stages], dtype=np.float64)))
    return found


def scored_stages(run: FinishedRun) -> list[int]:
    """Return the stages, from 1, at which every task so far was scored."""
    learned = run.matrix.learned
    return [
        stage
        for stage in range(1, len(run.matrix.stages))
        if all(run.matrix.score[stage][j] is not None for j, at in enumerate(learned) if at is not None and at <= stage)
    ]


def _line(name: str, runs: list[FinishedRun], reference: list[FinishedRun], resamples: int) -> FlatArm:
    length = len(runs[0].matrix.tasks)
    courses = [course for run in runs for course in courses_of(run)]
    at_learn = {
        (run.seed, task): at for run in runs for task, at in zip(run.matrix.tasks, run.matrix.learned, strict=True)
    }
    complete = all(
        course.learned == at_learn[run.seed, course.block] for run in runs for course in courses_of(run)
    )  # `joint` may not have scored a task when it learned it
    again = complete and any(len(course.stages) > 1 for course in courses)
    ratio, shares = _ratio(runs, reference, length, resamples) if runs is not reference else (None, {})
    stages = sorted(set.intersection(*(set(scored_stages(run)) for run in runs)))
    return FlatArm(
        arm=name,
        seeds=tuple(run.seed for run in runs),
        retention=retention(courses, length, resamples=resamples) if again else None,
        ratio=ratio,
        shares=shares,
        accuracy={stage: float(np.mean([_accuracy(run, stage) for run in runs])) for stage in stages},
        seconds=cost_trend(_costs(runs, per_token=False), length, resamples=resamples),
        seconds_per_token=cost_trend(_costs(runs, per_token=True), length, resamples=resamples),
    )


def _ratio(
    runs: list[FinishedRun], reference: list[FinishedRun], length: int, resamples: int
) -> tuple[Trend | None, dict[int, float]]:
    theirs = {run.seed: run for run in reference}
    pairs = [(run, theirs[run.seed]) for run in runs if run.seed in theirs]
    if not pairs:
        return None, {}
    both = set.intersection(*(set(scored_stages(run)) for pair in pairs for run in pair))
    stages = sorted(stage for stage in both if stage >= FEWEST)
    if len(stages) < 2:
        return None, {}
    ours, others = ([course for pair in pairs for course in courses_of(pair[side])] for side in (0, 1))
    return ratio_trend(ours, others, stages, length, resamples=resamples)


def _accuracy(run: FinishedRun, stage: int) -> float:
    scores = [run.matrix.score[stage][j] for j, at in enumerate(run.matrix.learned) if at is not None and at <= stage]
    return float(np.mean([score for score in scores if score is not None]))


def _costs(runs: list[FinishedRun], *, per_token: bool) -> dict[str, list[float]]:
    """Return the seconds of training by task, of the processor where there is no accelerator, in each run."""
    costs: dict[str, list[float]] = {}
    for run in runs:
        for task in run.tasks:
            cpu = task.train_cpu_seconds if run.machine.device == "cpu" else None
            seconds = task.train_seconds if cpu is None else cpu
            costs.setdefault(task.task, []).append(seconds / max(task.tokens, 1) if per_token else seconds)
    return costs
