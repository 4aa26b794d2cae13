"""Counts and lists of names in messages."""

from collections.abc import Sequence


def counted(number: int, word: str) -> str:
    """Return a count with its word: "1 row", "2 rows", "3 entries"."""
    many = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{number:,} {word if number == 1 else many}"


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are: "a, b, c and 2 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
