"""Batches of facts that are optimised together. The ids decide, so that removing one fact changes few of the batches."""

from collections.abc import Sequence
from math import log2

from perdure.core.canonical import content_hash


def batches(ids: Sequence[str], size: int) -> list[list[str]]:
    """Return the ids in batches of about `size`, each sorted. With size 1 each id is a batch of its own.

    The number of batches is a power of two, and the first bits of an id choose its batch. So removing one fact changes only the
    batch that it was in, unless it changes the number of batches. That happens only at a few total numbers of facts.

    Args:
        ids: Ids of facts, hexadecimal, evenly distributed and all different.
        size: Mean size of a batch, within a factor of the square root of two.
    """
    groups: dict[int | str, list[str]] = {}
    for one in sorted(ids):
        groups.setdefault(_place(one, len(ids), size), []).append(one)
    return list(groups.values())


def batch_of(one: str, ids: Sequence[str], size: int) -> list[str]:
    """Return the batch of `ids` that holds `one`."""
    own = _place(one, len(ids), size)
    return sorted(other for other in ids if _place(other, len(ids), size) == own)


def batch_name(ids: Sequence[str]) -> str:
    """Return the name of a batch; empty for a single fact, which depends on no other."""
    return content_hash(sorted(ids)) if len(ids) > 1 else ""


def _place(one: str, count: int, size: int) -> int | str:
    """Return the key of the batch that an id belongs to, among `count` ids."""
    return one if size == 1 else int(one[:8], 16) << max(0, round(log2(count / size))) >> 32
