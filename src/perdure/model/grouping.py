"""Batches of rows of like length, so that little is padded."""

from collections.abc import Sequence


def of_like_length(lengths: Sequence[int], rows: int, tokens: int) -> list[list[int]]:
    """Return all rows in batches, the shortest first and in their order where they are equally long.

    Args:
        lengths: Tokens of each row.
        rows: Most rows a batch.
        tokens: Most padded tokens a batch; a row that is longer goes alone.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or len(batches[-1]) == rows or (len(batches[-1]) + 1) * lengths[i] > tokens:
            batches.append([])
        batches[-1].append(i)
    return batches
