"""Whether scores stay flat over a stream of tasks: a slope over stages, with an interval over tasks.

Three claims are apart: what a task loses after it was learned (`retention`), what the mean over all tasks so far does against
that of a reference (`ratio_trend`), and what a learn costs (`cost_trend`). Each is the slope of a straight line times the stages
of the stream, so that it reads as the change from its beginning to its end.

Tasks are blocks, whose weights are drawn anew in each replicate; a task's runs with other seeds or orders belong to its block.
Items are not drawn within tasks: their noise is a part of how tasks differ, and would count twice. Where nothing falls and tasks
differ by chance alone, drawing both made intervals 1.6 times as wide as the spread of the estimate (50 tasks of 30 items, 30
streams).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perdure.maths.statistics import student

MARGIN = 0.03  # of a mean score: less than that over the whole stream is flat
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TaskCourse:
    """The scores of one task in one run.

    Args:
        block: What is drawn together: the task's name, the same in runs of other seeds and orders.
        learned: The stage that learned it, from 1.
        stages: Stages at which it was scored from then on, rising; the first is `learned`.
        items: (stages, items), in [0, 1]: scores of the same test rows at each stage.
    """

    block: str
    learned: int
    stages: tuple[int, ...]
    items: Floats

    def __post_init__(self) -> None:
        if not self.stages or self.stages[0] != self.learned or list(self.stages) != sorted(set(self.stages)):
            raise ValueError(
                f"task {self.block}: stages {self.stages} must rise, and begin with the one that learned it, {self.learned}"
            )
        if self.items.ndim != 2 or self.items.shape[0] != len(self.stages) or not self.items.shape[1]:
            raise ValueError(
                f"task {self.block}: items must be ({len(self.stages)} stages, items), got {self.items.shape}"
            )


@dataclass(frozen=True)
class Trend:
    """A slope over stages times the stages of the stream, with its interval.

    Args:
        change: slope x (T - 1), where T is the number of stages.
        low: Lower end of the interval.
        high: Upper end.
        tasks: Number of tasks that it is computed from, the blocks of its interval.
        n: Number of cells (task and stage) or stages of the regression.
    """

    change: float
    low: float
    high: float
    tasks: int
    n: int

    def verdict(self, margin: float = MARGIN) -> Literal["flat", "falls", "rises", "undecided"]:
        """Return "flat" where the interval lies within the margin, else on which side of 0 it lies, if on one."""
        if -margin <= self.low and self.high <= margin:
            return "flat"
        if self.high < 0:
            return "falls"
        return "rises" if self.low > 0 else "undecided"


def retention(
    courses: Sequence[TaskCourse], length: int, confidence: float = 0.95, *, seed: int = 0, resamples: int = 1000
) -> Trend:
    """Return what a task's mean score changes over the whole stream after it was learned.

    b = sum a y / sum a^2,    where a = stage - stage learned, and y = mean score then - mean score when learned.

    Args:
        courses: Every task of every run.
        length: T, the number of stages of the stream.
        confidence: Two-sided.
        seed: Names the resamples.
        resamples: Number of replicates.

    Raises:
        ValueError: No task was scored after the stage that learned it.

    Cost: resamples x tasks draws.
    Deviation: through the origin and over the age of a task, not over the stage: a task that was just learned has changed by
        nothing, and such cells would flatten a slope over stages.
    """
    used = [course for course in courses if len(course.stages) > 1]
    if not used:
        raise ValueError("no task was scored after the stage that learned it; score old tasks again at later stages")
    draw = _Draws([course.block for course in used], seed, resamples)
    top, bottom = np.zeros(resamples + 1), np.zeros(resamples + 1)
    leverage = defaultdict[str, float](float)
    for course in used:
        ages = np.array(course.stages, dtype=np.float64) - course.learned
        change = course.items - course.items[0]
        weight = draw.of(course.block)
        top += weight * (change.mean(1) @ ages)
        bottom += weight * (ages @ ages)
        leverage[course.block] += float(ages @ ages)
    cells = sum(len(course.stages) - 1 for course in used)
    return _trend(top / bottom * (length - 1), leverage, cells, confidence)


def ratio_trend(
    courses: Sequence[TaskCourse],
    reference: Sequence[TaskCourse],
    stages: Sequence[int],
    length: int,
    confidence: float = 0.95,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[Trend, dict[int, float]]:
    """Return the trend of the mean score over all tasks so far, in shares of the reference's, and that share at each stage.

    r(t) = sum over tasks learned by t of their mean score at t / the same sum of the reference,

    and the slope is that of a straight line with an intercept through r(t). The set of tasks grows with t, and more labels are
    harder for any model, so that the mean score alone falls even where nothing is forgotten.

    Args:
        courses: Every task of every run.
        reference: The same tasks and runs, in the same order: learned jointly.
        stages: Stages at which every task so far was scored by both, at least two.
        length: T, the number of stages of the stream.
        confidence: Two-sided.
        seed: Names the resamples.
        resamples: Number of replicates.

    Raises:
        ValueError: The two differ in their tasks, a task lacks a stage, or there are fewer than two stages.

    Cost: resamples x tasks draws.
    """
    if len(stages) < 2:
        raise ValueError(f"a trend needs two stages at which both scored every task so far, got {list(stages)}")
    if [course.block for course in courses] != [course.block for course in reference]:
        raise ValueError("the reference must have the same tasks in the same order")
    draw = _Draws([course.block for course in courses], seed, resamples)
    sums = np.zeros((2, len(stages), resamples + 1))
    for ours, theirs in zip(courses, reference, strict=True):
        weight, known = draw.of(ours.block), [k for k, stage in enumerate(stages) if stage >= ours.learned]
        means = [_at(course, [stages[k] for k in known]).mean(1) for course in (ours, theirs)]
        sums[:, known] += np.array(means)[:, :, None] * weight
    if not sums[1].all():
        raise ValueError("the reference scores 0 at a stage; its share is not defined there")
    share = sums[0] / sums[1]  # (stages, replicates)
    centred = np.array(stages, dtype=np.float64) - np.mean(stages)
    slopes = centred @ share / (centred @ centred)
    present = np.array([[stage >= course.learned for stage in stages] for course in courses])  # (courses, stages)
    influence = (present * centred / present.sum(0)).sum(1)
    leverage = defaultdict[str, float](float)
    for course, own in zip(courses, influence, strict=True):
        leverage[course.block] += own**2
    trend = _trend(slopes * (length - 1), leverage, len(stages), confidence)
    return trend, {stage: float(share[k, -1]) for k, stage in enumerate(stages)}


def cost_trend(
    costs: Mapping[str, Sequence[float]],
    length: int,
    confidence: float = 0.95,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Trend:
    """Return what the cost of a learn changes over the stream, in shares of its mean: .3 is that it grows by 30% of it.

    Args:
        costs: By task (the first learned first) its costs in each run. All positive.
        length: T, the number of stages of the stream.
        confidence: Two-sided.
        seed: Names the resamples.
        resamples: Number of replicates.

    Raises:
        ValueError: There are fewer than three tasks.
    """
    if len(costs) < 3:
        raise ValueError(f"the trend of a cost needs three tasks, got {len(costs)}")
    mean = np.array([np.mean(own) for own in costs.values()])
    draw = _Draws(list(costs), seed, resamples)
    weight = np.array([draw.of(name) for name in costs])  # (tasks, replicates)
    at = np.arange(1.0, len(mean) + 1)[:, None]
    total = weight.sum(0)
    centre, level = (weight * at).sum(0) / total, (weight * mean[:, None]).sum(0) / total
    slope = (weight * (at - centre) * (mean[:, None] - level)).sum(0) / (weight * (at - centre) ** 2).sum(0)
    leverage = {name: (place - (len(mean) + 1) / 2) ** 2 for place, name in enumerate(costs, 1)}
    return _trend(slope / level * (length - 1), leverage, len(mean), confidence)


class _Draws:
    """Weights of blocks, in replicates of which the last is the estimate itself: all weights equal.

    Weights are exponential (the Bayesian bootstrap), so that no block ever has none: few tasks are known at an early stage.

    Source: Rubin, "The Bayesian bootstrap", Annals of Statistics, 1981.
    """

    def __init__(self, blocks: Sequence[str], seed: int, resamples: int):
        generator, names = np.random.default_rng(seed), list(dict.fromkeys(blocks))
        drawn = np.concatenate([generator.exponential(size=(resamples, len(names))), np.ones((1, len(names)))])
        self.weights = dict(zip(names, drawn.T, strict=True))

    def of(self, block: str) -> Floats:
        """Return the weight of a block in each replicate."""
        return self.weights[block]


def _at(course: TaskCourse, stages: Sequence[int]) -> Floats:
    """Return the items of a course at these stages, (stages, items)."""
    if missing := [stage for stage in stages if stage not in course.stages]:
        raise ValueError(f"task {course.block} was not scored after stage {missing[0]}; leave out that stage")
    return course.items[[course.stages.index(stage) for stage in stages]]


def _trend(values: Floats, leverage: Mapping[str, float], n: int, confidence: float) -> Trend:
    """Return the estimate, the last of `values`, with percentiles of the others, widened for the number of blocks.

    Percentiles over b blocks are too narrow by sqrt((b - 1) / (b + 1)), and have the normal quantile in the place of Student's.
    Where blocks count unequally (the oldest tasks decide a slope), b = (sum l)^2 / sum l^2 for their leverages l.

    Source: Hesterberg, "What teachers should know about the bootstrap", American Statistician, 2015, 3.1 (expanded percentiles).
    """
    tasks, change = len(leverage), float(values[-1])
    blocks = sum(leverage.values()) ** 2 / sum(one**2 for one in leverage.values())
    if blocks < 2:
        return Trend(change, -np.inf, np.inf, tasks, n)  # one task tells nothing about others
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    wider = student(z, blocks - 1) / z * ((blocks + 1) / (blocks - 1)) ** 0.5
    low, high = np.quantile(values[:-1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Trend(change, change - wider * (change - float(low)), change + wider * (float(high) - change), tasks, n)
