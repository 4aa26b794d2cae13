"""Whether a guard can fall at all: one whose reference scores no better than chance cannot, and counts for nothing."""

from collections.abc import Sequence

from perdure.maths.statistics import mean_interval


def is_blind(
    before: Sequence[float],
    chance: float | None,
    tolerance: float,
    *,
    groups: Sequence[str] = (),
    confidence: float = 0.95,
) -> bool:
    """Return whether the scores at the reference leave nothing to lose.

    That is so where their mean is at most the tolerance, or where its lower one-sided bound is not above chance.

    Args:
        before: Score of each row at the reference, in [0, 1].
        chance: Expected score of guessing; None where there is no such score.
        tolerance: Largest drop that is no loss.
        groups: Group of each row; empty where rows are independent.
        confidence: Of the one-sided bound.
    """
    if sum(before) / len(before) <= tolerance:
        return True
    if chance is None:
        return False
    return mean_interval(before, 2 * confidence - 1, groups=groups)[1] <= chance
