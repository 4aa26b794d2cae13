"""Numbers with their errors."""

from dataclasses import dataclass

from perdure.core.records import Record


@dataclass(frozen=True)
class Estimate(Record):
    """A mean with its 95% interval.

    Args:
        value: The mean.
        low: Lower end of the interval.
        high: Upper end.
        n: Number of items.
    """

    value: float
    low: float
    high: float
    n: int
