"""Scores, drops and advice of a gate in words."""

from collections.abc import Sequence


def percent(share: float) -> str:
    """Return a share in percent, as "91.7%"."""
    return f"{100 * share:.1f}%"


def points(share: float) -> str:
    """Return a share in points, as "3.0 points"."""
    return f"{100 * share + 0.0:.1f} points"


def change(drop: float) -> str:
    """Return in words how much a drop is."""
    return "no change" if abs(drop) < 5e-4 else f"{points(abs(drop))} {'lost' if drop > 0 else 'gained'}"


def bounds(drop: float, low: float, high: float) -> str:
    """Return in words what a drop and the bounds of it leave open."""
    best = f"{100 * abs(low):.1f} {'lost' if low > 0 else 'gained'}"
    most = f"{100 * abs(high):.1f} {'lost' if high > 0 else 'gained'}"
    return f"{change(drop)}, could be {best} to {most}"


def more_items(more: int | None, each: bool = False) -> str:
    """Return how many more items would decide; None where no number would."""
    if more is None:
        return "the drop sits on the tolerance, more test items would not decide"
    return f"about {more:,} more test items{' each' if each else ''} would decide"


def listed(names: Sequence[str]) -> str:
    """Return the first three names, and the number of the rest."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
