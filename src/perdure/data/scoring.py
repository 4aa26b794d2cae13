"""The version of scoring. A score of an earlier version is measured again, and never compared with a current one."""

import re
from collections.abc import Sequence

from perdure.core.rows import Row
from perdure.core.script import has_unspaced, narrowed

FIRST, NOW = 1, 2
MARKED = re.compile(r"<\S|\[/?[A-Z]{2,}")  # perhaps a special token; version 1 left these out of an answer


def scoring_version(scorer: str, format: str, test: Sequence[Row]) -> int:
    """Return the version of scoring under which a task's scores are stored.

    Version 2 includes the end of an answer in a choice, shows conversations' answers without their thoughts, and counts letters
    of scripts without spaces. A task that none of this concerns stays at version 1 and keeps its scores.

    Args:
        scorer: Name of its scorer.
        format: Format of its rows.
        test: Its test rows.
    """
    if scorer == "choice" or format in ("messages", "sharegpt"):
        return NOW
    return NOW if any(row.messages or _reads_otherwise(row) for row in test) else FIRST


def _reads_otherwise(row: Row) -> bool:
    """Return whether a row of plain text may have another score than in version 1."""
    answer = row.completion
    return (
        has_unspaced(answer)
        or narrowed(answer) != answer
        or bool(MARKED.search(answer))
        or bool(MARKED.match(row.prompt))
    )
