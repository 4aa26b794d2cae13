"""The score of a task at one state of the model."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import Record, omitted_mapping


@dataclass(frozen=True)
class ScoreSummary(Record):
    """A score without its items.

    Args:
        score: Mean over the test rows.
        low: Lower end of its 95% interval.
        high: Upper end.
        n: Number of test rows.
        scorer: Name of the scorer.
    """

    score: float
    low: float
    high: float
    n: int
    scorer: str


@dataclass(frozen=True)
class Score(Record):
    """The score of a task at one state, with everything per test row.

    Args:
        scorer: Name of the scorer.
        score: Mean of the items.
        low: Lower end of its 95% interval.
        high: Upper end.
        n: Number of test rows.
        items: Score of each test row, in [0, 1].
        predictions: The model's answer to each test row.
        rows: `Row.hash` of each test row.
        seconds: Wall time that scoring took.
        readings: Further numbers of each test row by name, in the order of `items`: "nats" of the right answer and the like.
    """

    scorer: str
    score: float
    low: float
    high: float
    n: int
    items: tuple[float, ...]
    predictions: tuple[str, ...]
    rows: tuple[str, ...]
    seconds: float
    readings: Mapping[str, tuple[float, ...]] = omitted_mapping()

    @property
    def summary(self) -> ScoreSummary:
        """The score without its items."""
        return ScoreSummary(self.score, self.low, self.high, self.n, self.scorer)
