"""Families of tests: many guards judged together, and one guard judged more than once."""

import math
from collections.abc import Sequence

from perdure.maths.statistics import Interval

SPENT = (0.1, 0.3, 0.6)  # share of the error that each look spends


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p values adjusted for their number, in the same order.

    Of m values sorted upwards, the k-th adjusted one is max over j <= k of (m - j + 1) p_j, at most 1. A hypothesis is rejected
    where its adjusted value is below the level; then the chance to reject any true hypothesis is at most the level, whatever the
    dependence of the tests.

    Args:
        p_values: Each in [0, 1]; none is allowed.

    Raises:
        ValueError: A value is outside [0, 1].

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.
    Deviation: none.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    for value in p_values:
        if not 0 <= value <= 1:
            raise ValueError(f"a p value is {value}; it must lie in [0, 1]")
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        largest = max(largest, min((len(p_values) - rank) * p_values[index], 1.0))
        adjusted[index] = largest
    return tuple(adjusted)


def simultaneous_confidence(confidence: float, number: int) -> float:
    """Return the confidence of each of `number` bounds that all hold together with `confidence` (Bonferroni).

    Raises:
        ValueError: `number` is below 1.

    Example:
        >>> round(simultaneous_confidence(0.95, 5), 4)
        0.99
    """
    if number < 1:
        raise ValueError(f"{number} bounds cannot hold together; give 1 or more")
    return 1 - (1 - confidence) / number


def look_confidence(look: int, confidence: float = 0.95) -> float:
    """Return the confidence of one look at data that grow until they decide.

    Three looks at a tenth, three tenths and six tenths of the error: together they err no more often than one look with
    `confidence`.

    Args:
        look: 1, 2 or 3.
        confidence: One-sided, of all looks together.

    Raises:
        ValueError: There is no such look.

    Source: the split of Bonferroni; Pocock's or O'Brien and Fleming's limits would be a little narrower.

    Example:
        >>> [round(look_confidence(look), 3) for look in (1, 2, 3)]
        [0.995, 0.985, 0.97]
    """
    if not 1 <= look <= len(SPENT):
        raise ValueError(f"look is {look}; it is a number from 1 to {len(SPENT)}")
    return 1 - (1 - confidence) * SPENT[look - 1]


def mean_of_intervals(intervals: Sequence[Interval]) -> Interval:
    """Return the mean of independent values, and its interval from theirs.

        low = mean - sqrt(sum (value_k - low_k)²) / m,      high = mean + sqrt(sum (high_k - value_k)²) / m

    Its confidence is that of the intervals. It needs no resampling, and stays honest where nothing changed, as they do.

    Args:
        intervals: One or more, of independent samples.

    Raises:
        ValueError: `intervals` is empty.

    Source: Zou and Donner, "Construction of Confidence Limits about Effect Measures: a General Approach", Statistics in
        Medicine 2008, the method now called MOVER, for a mean of m values.
    Deviation: none.

    Example:
        >>> [round(x, 3) for x in mean_of_intervals([(0.1, 0.0, 0.2), (0.3, 0.2, 0.4)])]
        [0.2, 0.129, 0.271]
    """
    if not intervals:
        raise ValueError("there is no interval to take the mean of")
    m = len(intervals)
    value = sum(value for value, _, _ in intervals) / m
    below = math.hypot(*(value - low for value, low, _ in intervals)) / m
    above = math.hypot(*(high - value for value, _, high in intervals)) / m
    return value, value - below, value + above
