"""Batches of rows of similar length, so that there is little padding."""

from collections.abc import Sequence

from perdure.core.keyed import keyed


def of_like_length(lengths: Sequence[int], rows: int, tokens: int) -> list[list[int]]:
    """Return all rows in batches, the shortest first; rows of equal length stay in their order.

    Args:
        lengths: Tokens of each row.
        rows: Largest number of rows per batch.
        tokens: Largest number of padded tokens per batch; a longer row is a batch alone.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or len(batches[-1]) == rows or (len(batches[-1]) + 1) * lengths[i] > tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def plan_epoch(lengths: Sequence[int], batch_size: int, *key: object, window: int = 50) -> list[list[int]]:
    """Return the batches of one epoch as row indices: shuffled, then grouped by length to save padding.

    Rows are permuted, sorted by length inside windows of `window` batches, cut into batches, and the batches are permuted.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows per batch; the last one may be smaller.
        *key: Key of the permutation, such as seed, task and epoch.
        window: Number of batches that are sorted together; 1 is the plain shuffle.

    Source: the length-grouped sampler common since fairseq (2019). Deviation: keyed, so that every host draws the same.
    """
    order = keyed(*key, "order").permutation(len(lengths))
    size = window * batch_size
    batches = []
    for start in range(0, len(order), size):
        block = sorted(order[start : start + size], key=lambda i: -lengths[i])
        batches += [[int(i) for i in block[a : a + batch_size]] for a in range(0, len(block), batch_size)]
    return [batches[i] for i in keyed(*key, "batches").permutation(len(batches))]
