"""Intervals for scores and for differences of scores: no number without its error.

Items are scores of single test rows, each in [0, 1]. Where every item is 0 or 1, the interval is a score interval in
closed form (Wilson for a mean, Tango for a paired difference): it needs no seed and stays honest when all items agree.
Other items are resampled: by percentiles for a mean over tasks, corrected for skewness (BCa) for one task. A bootstrap
cannot draw what is not in its sample: 120 equal items would give an interval of no width. So where few items differ from the
commonest value, the interval is widened by `unseen(n, z)`, what a Wilson interval leaves open after n items of which
none differed: over tasks where fewer than `SPARSE` do, for one task by a share that falls as `SPARSE` over their number.

Own code instead of scipy: Tango's interval is not in scipy, and its bootstrap has no widening and no closed form for the
constants of BCa. Wilson's four lines agree with `scipy.stats.binomtest` to 4e-16 (tested) in a thousandth of its
time, and spare every learn the import of `scipy.stats`, which takes some twelve times that of numpy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float, float]  # value, low, high
SPARSE = 5  # fewer items than this off the commonest value: too few for a bootstrap to know how often they occur
BLOCK = 100  # replicates drawn at once
FARTHEST = 8.0  # largest quantile of the normal distribution at which a bound is looked for


def mean_interval(
    items: ArrayLike, confidence: float = 0.95, seed: int = 0, resamples: int = 2000, groups: Sequence[str] = ()
) -> Interval:
    """Return the mean of `items` and its two-sided interval, inside [0, 1].

    Args:
        items: Scores of single test rows, (n,), each in [0, 1].
        confidence: Chance that the interval contains the true mean, in (0, 1).
        seed: Names the resamples; the same items and seed give the same interval. Unused where all items are 0 or 1.
        resamples: Number of bootstrap replicates.
        groups: The group of each item, or nothing; see `paired_difference`.

    Raises:
        ValueError: `items` is empty, not flat, or contains a value outside [0, 1], or `groups` has another length.

    Source: Wilson, JASA 1927; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Example:
        >>> [round(x, 3) for x in mean_interval([1.0] * 120)]
        [1.0, 0.969, 1.0]
    """
    scores = _scores(items)
    z, clusters = _quantile(confidence, one_sided=False), _clusters(groups, len(scores))
    if clusters is None and _binary(scores):
        return _wilson(float(scores.mean()), len(scores), z)
    return _resampled(scores, clusters, (0.0, 1.0), seed, resamples).interval(z)


def interval_name(items: ArrayLike) -> str:
    """Return the method of the interval that `mean_interval` gives these items: "Wilson" or "bootstrap"."""
    return "Wilson" if _binary(_scores(items)) else "bootstrap"


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    confidence: float = 0.95,
    *,
    one_sided: bool = False,
    seed: int = 0,
    resamples: int = 2000,
    groups: Sequence[str] = (),
) -> Interval:
    """Return the mean of `a - b` over the same test rows and its interval, inside [-1, 1].

    With 0/1 items only those that changed carry information: w items where `a` alone is right, l where `b` alone is.
    The interval contains every d that the score test of w/n - l/n = d does not reject (Tango). With no changed item it is
    not empty: z²/(n + z²) on both sides. Other items: paired bootstrap (BCa), widened where few items changed.

    Rows that have a template, a passage or a subject in common change together. With `groups` whole groups are resampled, and
    Student's quantiles with one degree of freedom less than there are groups replace the normal ones.

    Args:
        a: Scores of single test rows, (n,), each in [0, 1].
        b: Scores of the same rows in the same order, (n,).
        confidence: In (0, 1).
        one_sided: Each of the two bounds holds with `confidence` by itself (for a test against one limit); otherwise
            both hold together.
        seed: Names the resamples.
        resamples: Number of bootstrap replicates.
        groups: The group of each row, (n,), or nothing where rows are independent. Groups of one row each are ignored.

    Raises:
        ValueError: Lengths differ, or items are not as in `mean_interval`.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design", Statistics in Medicine 1998, equations 12-15. Groups: Field and Welsh, "Bootstrapping Clustered Data", Journal of
        the Royal Statistical Society B 2007.
    Deviation: none for 0/1 items without groups; the widening of sparse graded items and sparse groups is ours.

    Example:
        >>> [round(x, 3) for x in paired_difference([1, 1, 0, 1], [1, 1, 0, 1])]
        [0.0, -0.49, 0.49]
    """
    first, second = _pair(a, b)
    clusters = _clusters(groups, len(first))
    if clusters is None and _binary(first) and _binary(second):
        z = _quantile(confidence, one_sided)
        wins, losses = float((first > second).mean()), float((first < second).mean())
        n = len(first)
        return wins - losses, -_tango_upper(losses, wins, n, z), _tango_upper(wins, losses, n, z)
    level = 2 * confidence - 1 if one_sided else confidence
    return _resampled(first - second, clusters, (-1.0, 1.0), seed, resamples).interval(
        _quantile(level, one_sided=False)
    )


def paired_p_value(
    a: ArrayLike,
    b: ArrayLike,
    limit: float,
    *,
    seed: int = 0,
    resamples: int = 2000,
    groups: Sequence[str] = (),
    continuity: bool = False,
) -> float:
    """Return the p value of the one-sided test that the mean of `a - b` is at most `limit`.

    It is the level at which the lower one-sided bound of `paired_difference` equals `limit`. For 0/1 items without groups that is
    the score test in closed form:

        p = 1 - Phi((d - limit) / sqrt(v / n)),      where d is the mean difference, v the variance of Tango's test at `limit`.

    Other items: found by bisection; below one in `resamples`, where no replicate is left, p is at least that of the normal
    distribution.

    Args:
        a: Scores of single test rows, (n,), each in [0, 1].
        b: Scores of the same rows in the same order, (n,).
        limit: Largest difference that the hypothesis allows, in (-1, 1).
        seed: Names the resamples.
        resamples: Number of bootstrap replicates.
        groups: As in `paired_difference`.
        continuity: Of 0/1 items, take half a row off the distance d - limit. Counts are discrete, and far out in the tail, where
            a test among many is decided, their distribution lies above the normal one.

    Raises:
        ValueError: As in `paired_difference`.

    Source: as in `paired_difference`.

    Example:
        >>> round(paired_p_value([1] * 10 + [0] * 90, [0] * 100, 0.03), 5)
        2e-05
    """
    first, second = _pair(a, b)
    clusters = _clusters(groups, len(first))
    if clusters is None and _binary(first) and _binary(second):
        wins, losses = float((first > second).mean()), float((first < second).mean())
        variance = _tango_variance(wins, losses, limit)
        distance = wins - losses - limit
        if continuity and distance > 0:
            distance = max(distance - 0.5 / len(first), 0.0)
        return _tail(distance / math.sqrt(variance / len(first))) if variance > 0 else float(distance <= 0)
    return _resampled(first - second, clusters, (-1.0, 1.0), seed, resamples).p_value(limit)


def mean_of_means(
    groups: Sequence[NDArray[np.float64]],
    limits: tuple[float, float],
    confidence: float = 0.95,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Interval:
    """Return the mean over groups of the mean over items, and its bootstrap interval.

    Items are resampled inside their group, groups independently. Each sparse group adds `unseen(n, z)`, over the number
    of groups, to the distances from the value, in quadrature.

    Args:
        groups: One array of items per group, each (n,), n may differ.
        limits: Smallest and largest possible value; the interval is cut there.
        confidence: Two-sided, in (0, 1).
        seed: Names the resamples.
        resamples: Number of replicates.

    Cost: resamples x items draws, some 8 ns each; memory for `BLOCK` replicates of one group.
    """
    generator = np.random.default_rng(seed)
    z = _quantile(confidence, one_sided=False)
    replicates = sum(_replicates(group, generator, resamples) for group in groups) / len(groups)
    widening = math.hypot(*(unseen(len(group), z) / len(groups) for group in groups if _sparse(group)))
    value = float(np.mean([group.mean() for group in groups]))
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return _widened(value, low, high, widening, limits)


@dataclass(frozen=True)
class _Resampled:
    """The bootstrap of a mean, corrected for bias and skewness (BCa), widened where few items or groups vary.

    Rare large drops skew the mean: where 6% of 200 items drop, plain percentiles at 95% one-sided contained the true drop in
    89% of 400 draws, these in 97%.

    Source: Efron, "Better Bootstrap Confidence Intervals", JASA 1987; of a mean both constants are sum u^3 / (6 (sum u^2)^1.5).
    """

    value: float
    replicates: NDArray[np.float64]
    influence: NDArray[np.float64]  # (units,): what each item or group adds to the deviation of the mean
    varying: int  # units off the commonest value
    limits: tuple[float, float]
    degrees: int | None  # of Student's distribution; None for the normal one

    @cached_property
    def skew(self) -> float:
        squares = float((self.influence**2).sum())
        return float((self.influence**3).sum()) / (6 * squares**1.5) if squares else 0.0

    def bound(self, z: float) -> float:
        """Return the lower bound for a negative quantile `z` of the normal distribution, the upper one for a positive `z`."""
        if self.degrees == 0:  # one group tells nothing about others
            return self.limits[0 if z < 0 else 1]
        side = z if self.degrees is None else student(z, self.degrees)
        level = NormalDist().cdf(self.skew + (self.skew + side) / max(1 - self.skew * (self.skew + side), 1e-9))
        edge = float(np.quantile(self.replicates, level))
        widening = unseen(len(self.influence), z) * min(1.0, SPARSE / max(self.varying, 1))
        if z < 0:
            return _widened(self.value, edge, self.value, widening, self.limits)[1]
        return _widened(self.value, self.value, edge, widening, self.limits)[2]

    def interval(self, z: float) -> Interval:
        return self.value, self.bound(-z), self.bound(z)

    def p_value(self, limit: float) -> float:
        """Return the level at which the lower bound equals `limit`."""
        if self.value <= limit:
            return 1 - self._level(limit, 1)
        spread = float(self.replicates.std())
        normal = _tail((self.value - limit) / spread) if spread else 0.0
        return max(self._level(limit, -1), min(1 / (len(self.replicates) + 1), normal))

    def _level(self, limit: float, side: int) -> float:
        """Return the level of the bound on one side that equals `limit`, by bisection."""
        low, high = 0.0, FARTHEST
        while high - low > 1e-9:
            middle = (low + high) / 2
            beyond = side * (self.bound(side * middle) - limit) >= 0
            low, high = (low, middle) if beyond else (middle, high)
        return _tail(high)


def _resampled(
    values: NDArray[np.float64], clusters: "_Clusters | None", limits: tuple[float, float], seed: int, resamples: int
) -> _Resampled:
    """Return the bootstrap of the mean of `values`, over items, or over groups where there are any."""
    generator, value = np.random.default_rng(seed), float(values.mean())
    if clusters is None:
        replicates = _replicates(values, generator, resamples)
        return _Resampled(value, replicates, values - value, _varying(values), limits, None)
    sums, sizes = clusters.sums(values), clusters.sizes
    number = len(sizes)
    replicates = value + (_ratios(sums, sizes, generator, resamples) - value) * math.sqrt(number / max(number - 1, 1))
    means = np.round(sums / sizes, 12)  # so that a sum's rounding makes no two groups differ
    return _Resampled(value, replicates, sums - value * sizes, _varying(means), limits, number - 1)


@dataclass(frozen=True)
class _Clusters:
    """The groups of a list of rows."""

    member: NDArray[np.intp]  # (n,): number of each row's group
    sizes: NDArray[np.float64]  # (groups,)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of the values in each group, (groups,)."""
        return np.bincount(self.member, values, len(self.sizes)).astype(np.float64)


def _clusters(groups: Sequence[str], n: int) -> _Clusters | None:
    """Return the groups of n rows; None where there are none, or each has one row.

    Raises:
        ValueError: There are groups, and not one for each row.
    """
    if len(groups) == 0:
        return None
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} items; give the group of each item, or none")
    _, member, sizes = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True, return_counts=True)
    return _Clusters(member, sizes.astype(np.float64)) if len(sizes) < n else None


def student(z: float, degrees: float) -> float:
    """Return the quantile of Student's distribution at the level of the normal quantile `z`.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, 26.7.5, its first two terms.
    """
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def _ratios(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], generator: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Return the means over rows of `resamples` draws of whole groups with replacement."""
    number, blocks = len(sums), [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    draws = (generator.integers(number, size=(b, number), dtype=np.int32) for b in blocks)
    return np.concatenate([sums[draw].sum(axis=1) / sizes[draw].sum(axis=1) for draw in draws])


def _replicates(items: NDArray[np.float64], generator: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    """Return the means of `resamples` draws with replacement."""
    n, blocks = len(items), [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    return np.concatenate([items[generator.integers(n, size=(b, n), dtype=np.int32)].mean(axis=1) for b in blocks])


def _widened(value: float, low: float, high: float, widening: float, limits: tuple[float, float]) -> Interval:
    below = math.hypot(max(value - low, 0.0), widening)
    above = math.hypot(max(high - value, 0.0), widening)
    return value, max(value - below, limits[0]), min(value + above, limits[1])


def unseen(n: int, z: float) -> float:
    """Return the largest share of all items that can still differ when none of `n` did: the Wilson bound of 0 of n."""
    return z * z / (n + z * z)


def items_needed(
    a: ArrayLike, b: ArrayLike, limit: float, confidence: float = 0.95, groups: Sequence[str] = ()
) -> int | None:
    """Return how many more test items would decide on which side of `limit` the mean of `a - b` is, if that mean stays.

    (d - limit)² = z² v / N  solved for N, minus n,      where d is the mean difference now, v the variance of one
    item's difference. For 0/1 items v is that of Tango's test at `limit`, so that the answer agrees with
    `paired_difference`.

    Args:
        a: Scores of single test rows, (n,), each in [0, 1].
        b: Scores of the same rows, (n,).
        limit: The difference to compare with, in [0, 1].
        confidence: One-sided.
        groups: As in `paired_difference`; the further items then come in groups of the same sizes.

    Returns:
        0 if the items decide already; None if the mean difference equals `limit`, where no number of items decides.
    """
    first, second = _pair(a, b)
    difference = first - second
    n, effect = len(difference), float(difference.mean()) - limit
    if abs(effect) < 1e-9:
        return None
    clusters = _clusters(groups, n)
    if clusters is not None:
        sums, sizes = clusters.sums(difference), clusters.sizes
        number = len(sizes)
        variance = float(((sums - difference.mean() * sizes) ** 2).sum()) / n * number / max(number - 1, 1)
        variance += n / number * limit * (1 - limit) if _sparse(np.round(sums / sizes, 12)) else 0.0
    elif _binary(first) and _binary(second):
        variance = _tango_variance(float((difference > 0).mean()), float((difference < 0).mean()), limit)
    else:
        variance = float(difference.var()) + (limit * (1 - limit) if _sparse(difference) else 0.0)
    z = _quantile(confidence, one_sided=True)
    return max(math.ceil(z * z * variance / effect**2 - 1e-9) - n, 0)


def items_to_decide(changed: float, limit: float, confidence: float = 0.95) -> int:
    """Return with how many items a mean difference of 0 is shown to be below `limit`.

    limit² = z² v / N  solved for N,      where v is the variance of Tango's test at `limit`.

    Args:
        changed: Share of the items that differ, half of them each way, in [0, 1].
        limit: The difference, in (0, 1).
        confidence: One-sided.
    """
    z = _quantile(confidence, one_sided=True)
    return math.ceil(z * z * _tango_variance(changed / 2, changed / 2, limit) / limit**2 - 1e-9)


def _tango_variance(wins: float, losses: float, limit: float) -> float:
    """Variance of one item's difference if its mean is `limit`, with the losses' share at its restricted maximum."""
    b = (2 - wins + losses) * limit - wins - losses
    c = -losses * limit * (1 - limit)
    restricted = (math.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
    return max(2 * restricted + limit * (1 - limit), 0.0)


def _tango_upper(wins: float, losses: float, n: int, z: float) -> float:
    """Smallest difference above wins - losses that the score test rejects, by bisection (it is monotone)."""
    observed = wins - losses
    low, high = observed, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        rejected = middle - observed > z * math.sqrt(_tango_variance(wins, losses, middle) / n)
        low, high = (low, middle) if rejected else (middle, high)
    return high


def _wilson(share: float, n: int, z: float) -> Interval:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 of n and n of n the bound is exact; rounding must not cut the observed value off.
    return share, min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def _tail(z: float) -> float:
    """Return the chance that a normal variable is above `z`."""
    return NormalDist().cdf(-z)


def _quantile(confidence: float, one_sided: bool) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1, as 0.95")
    return NormalDist().inv_cdf(confidence if one_sided else (1 + confidence) / 2)


def _scores(items: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(items, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores have shape {scores.shape}; give a flat list with at least one item")
    if not ((scores >= 0) & (scores <= 1)).all():
        wrong = scores[~((scores >= 0) & (scores <= 1))][0]
        raise ValueError(f"a score is {wrong}; every score must lie in [0, 1]")
    return scores


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _scores(a), _scores(b)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} items cannot be paired with {len(second)}; score the same rows twice")
    return first, second


def _sparse(values: NDArray[np.float64]) -> bool:
    return _varying(values) < SPARSE


def _varying(values: NDArray[np.float64]) -> int:
    """Return how many values differ from the commonest."""
    return len(values) - int(np.unique(values, return_counts=True)[1].max())


def _binary(scores: NDArray[np.float64]) -> bool:
    return bool(np.isin(scores, (0.0, 1.0)).all())
