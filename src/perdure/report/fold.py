"""Long lists on the page: what is newest or worst is visible, the rest stands behind a summary with its count."""

from collections.abc import Sequence
from typing import TypeVar

from perdure.report.markup import Child, Html, el
from perdure.report.records import ReportData

T = TypeVar("T")
MANY = 20  # entries, or tasks, above which a page folds its lists


def is_long(data: ReportData) -> bool:
    """Return whether a workspace has so many entries or tasks that the lists of its page are folded."""
    return len(data.entries) > MANY + 1 or len(data.matrix.tasks) > MANY  # one entry is the base


def newest(items: Sequence[T], shown: int) -> tuple[list[T], list[T]]:
    """Return the last `shown` items, and those before them."""
    cut = max(0, len(items) - shown)
    return list(items[cut:]), list(items[:cut])


def folded(summary: str, *body: Child) -> Html:
    """Return a body behind a summary."""
    return el("details", el("summary", summary), *body, class_="rest")
