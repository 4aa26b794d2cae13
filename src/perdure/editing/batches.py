"""Which facts are optimised together: their ids decide, so that one fact's absence leaves most of the batches as they are."""

from collections.abc import Sequence
from math import log2

from perdure.core.canonical import content_hash


def batches(ids: Sequence[str], size: int) -> list[list[str]]:
    """Return the ids in batches of about `size`, each in order; with 1, each by itself.

    The number of batches is a power of two, and a fact's id says which is its own. So without one of the facts only those that
    shared its batch are in another one, unless the number of batches changes with it, which a few sizes of the whole do.

    Args:
        ids: Ids of facts, hexadecimal and evenly spread; different ones.
        size: Mean size of a batch, within a factor of the square root of two.
    """
    found: dict[int | str, list[str]] = {}
    for one in sorted(ids):
        found.setdefault(_place(one, len(ids), size), []).append(one)
    return list(found.values())


def batch_of(one: str, ids: Sequence[str], size: int) -> list[str]:
    """Return the batch of `ids` that holds `one`."""
    own = _place(one, len(ids), size)
    return sorted(other for other in ids if _place(other, len(ids), size) == own)


def batch_name(ids: Sequence[str]) -> str:
    """Return what names a batch; empty for a fact by itself, which depends on no other."""
    return content_hash(sorted(ids)) if len(ids) > 1 else ""


def _place(one: str, count: int, size: int) -> int | str:
    """Return what the batch of an id is known by, among `count` ids."""
    return one if size == 1 else int(one[:8], 16) << max(0, round(log2(count / size))) >> 32
