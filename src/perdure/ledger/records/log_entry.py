"""An entry, or a candidate that was discarded, as `perdure log` lists it."""

from dataclasses import dataclass
from typing import Literal

from perdure.core.records import omitted
from perdure.ledger.records.history import LogLine


@dataclass(frozen=True)
class LogEntry(LogLine):
    """A line of the log with the results of the entry.

    Args:
        verdict: The verdict of its gate; None where no gate judged it.
        score: Score of the task that it learned, or the mean over its tasks where it learned none; None where one was not
            measured.
        recipe: Name of the recipe.
        author: Who made it.
        message: The author's message about it.
        discarded: When the candidate was discarded, in UTC, as ISO 8601; None of an entry.
    """

    verdict: Literal["pass", "inconclusive", "fail", "off"] | None = None
    score: float | None = None
    recipe: str | None = None
    author: str | None = None
    message: str | None = None
    discarded: str | None = omitted(None)
