"""What a learn says beside the warnings that its few rows are due: tests learn from few."""

from collections.abc import Iterable

FEW = ("rarely teach a task", "cannot show the gate of a later learn", "fewer than 3 train rows", "known by heart")


def without_size(notices: Iterable[str]) -> list[str]:
    """Return the notices that are not about too few updates, labels or test rows."""
    return [said for said in notices if not any(words in said for words in FEW)]
