"""Counts as people write them."""


def counted(number: int, word: str) -> str:
    """Return a count with its word: "1 row", "2 rows", "3 entries"."""
    many = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{number:,} {word if number == 1 else many}"
