"""What a choice among answers is worth: its level by chance, and the probability of the right answer."""

import math
from collections.abc import Sequence

from perdure.core.rows import Row
from perdure.data.task import TaskData


def options_of(row: Row) -> int:
    """Return how many answers a row lets the model choose among: its contexts, or its choices; 0 where it has none."""
    return len(row.contexts) or len(row.choices)


def chance_level(task: TaskData) -> float | None:
    """Return the expected score of a task if every choice were equally likely: the mean of 1 / number of choices.

    None where the task is not scored by choice.
    """
    if task.scorer["name"] != "choice":
        return None
    counts = [options_of(row) or len(task.choices) for row in task.test]
    return math.fsum(1 / count for count in counts) / len(counts) if counts and all(counts) else None


def probability_of(gold: int, log_likelihoods: Sequence[float]) -> float:
    """Return the probability of the right choice, given that the answer is one of the choices: a softmax, in [0, 1].

    Args:
        gold: Index of the right choice.
        log_likelihoods: log p(choice | prompt) of each choice in nats, (choices,), whatever their lengths.
    """
    most = max(log_likelihoods)
    return math.exp(log_likelihoods[gold] - most) / math.fsum(math.exp(value - most) for value in log_likelihoods)
