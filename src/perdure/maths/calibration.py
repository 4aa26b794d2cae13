"""Probabilities that are as sure as they are right: the temperature of a softmax, from rows that were not fitted."""

from torch import Tensor

FLATTEST = 1e-3  # smallest inverse temperature
STEPS = 40  # halvings: the inverse temperature is exact to 1e-12


def temperature(scores: Tensor, own: Tensor) -> float:
    """Return the temperature T, 1 at least, at which softmax(scores / T) gives the right classes the largest likelihood.

    With b = 1/T, sum(logsumexp(b s) - b s_own) is convex in b, and its slope is sum(E[s] - s_own), where E is the mean under
    softmax(b s). The zero of the slope is found by bisection between 0.001 and 1.

    Args:
        scores: Score of each class for rows that were not fitted (rows, classes).
        own: Index of the right class of each row (rows,).

    Returns:
        The temperature; 1 without rows, and where a smaller one would be likelier: a few rows that are all right do not show
        that scores are too unsure.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv 1706.04599 (temperature scaling).
    Deviation: it is 1 at least.
    """
    right = scores.gather(-1, own[:, None]).sum()

    def rises(inverse: float) -> bool:
        return bool((((inverse * scores).softmax(-1) * scores).sum() - right) > 0)

    low, high = FLATTEST, 1.0
    if not len(scores) or not rises(high):
        return 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return 1 / high
