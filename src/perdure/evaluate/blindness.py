"""Whether a guard can fall at all: one whose reference scores no better than chance cannot, and counts for nothing.

This is the one rule: the gate, `guard list`, checkups, matrices, reports and benchmarks have it from here.
"""

from collections.abc import Sequence

from perdure.ledger.records import Gate
from perdure.ledger.records.guards_verdict import DRIFT
from perdure.maths.statistics import mean_interval


def is_blind(
    ability: str,
    before: Sequence[float],
    chance: float | None,
    *,
    groups: Sequence[str] = (),
    tolerance: float = Gate.tolerance,
    confidence: float = Gate.confidence,
) -> bool:
    """Return whether the scores at the reference leave nothing to lose; never of drift.

    That is so where their mean is at most the tolerance, or where its lower one-sided bound is not above chance.

    Args:
        ability: What the guard measures.
        before: Score of each row at the reference, in [0, 1].
        chance: Expected score of guessing; None where there is no such score.
        groups: Group of each row; empty where rows are independent.
        tolerance: Largest drop that is no loss.
        confidence: Of the one-sided bound.
    """
    if ability == DRIFT:
        return False
    if sum(before) / len(before) <= tolerance:
        return True
    if chance is None:
        return False
    return mean_interval(before, 2 * confidence - 1, groups=groups)[1] <= chance
