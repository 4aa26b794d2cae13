"""The five metrics of a stream: names, meaning and number format."""

from dataclasses import dataclass

from perdure.evaluate.matrix import Metric
from perdure.report.words import NOTHING, percent, points, span


@dataclass(frozen=True)
class MetricWords:
    """One metric of the matrix, in words."""

    key: str
    name: str  # as papers call it
    title: str
    meaning: str
    difference: bool = False  # a difference of scores, in points, rather than a score
    signed: bool = True  # whether a plus sign is written on a difference

    def number(self, metric: Metric) -> str:
        """Return the value without its unit."""
        value = metric.value
        if value is None:
            return NOTHING
        return points(value, self.signed) if self.difference else percent(value)[:-1]

    @property
    def unit(self) -> str:
        """What follows the number."""
        return " points" if self.difference else "%"

    def interval(self, metric: Metric) -> str:
        """Return the interval, empty where there is none."""
        return span(metric.low, metric.high, signed=self.difference and self.signed)


METRICS = [
    MetricWords("acc", "ACC", "Average score now", "The mean over all learned tasks, after the last stage."),
    MetricWords(
        "bwt", "BWT", "Change on earlier tasks", "Since each was learned. Below zero, something was lost.", True
    ),
    MetricWords(
        "forgetting",
        "Forgetting",
        "Forgotten",
        "Best score an earlier task ever had, less its score now. Zero is best.",
        True,
        False,
    ),
    MetricWords(
        "learning_accuracy",
        "Learning accuracy",
        "Score when just learned",
        "How well each task is learned in its turn.",
    ),
    MetricWords("fwt", "FWT", "Head start", "Score on a task before its turn, above the base model's.", True),
]
