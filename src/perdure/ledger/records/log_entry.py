"""An entry, or a candidate that was discarded, as `perdure log` lists it."""

from dataclasses import dataclass
from typing import Literal

from perdure.core.records import omitted
from perdure.ledger.records.history import LogLine


@dataclass(frozen=True)
class LogEntry(LogLine):
    """A line of the log with what came of the entry.

    Args:
        verdict: What its gate decided; None where it has been through none.
        score: Score of the task that it learned, there; None where that was not measured.
        recipe: Name of the recipe.
        author: Who made it.
        message: What the author wrote about it.
        discarded: When the candidate was discarded, in UTC, as ISO 8601; None of an entry.
    """

    verdict: Literal["pass", "inconclusive", "fail", "off"] | None = None
    score: float | None = None
    recipe: str | None = None
    author: str | None = None
    message: str | None = None
    discarded: str | None = omitted(None)
