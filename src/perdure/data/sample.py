"""A sample of test rows: the same for the same rows, by their labels, and part of every larger sample."""

from collections import Counter
from collections.abc import Sequence

from perdure.core.canonical import content_hash
from perdure.core.rows import Row

MOST = 1000  # test rows that are scored where a task does not say


def sample_of(rows: Sequence[Row], most: int, seed: int = 0) -> list[int]:
    """Return the indices of at most `most` rows, in their order: every label with its share of them.

    The rows of each label are put in an order by their hashes. The i-th of n has the rank (i + 1/2) / n, and the rows with the
    smallest ranks are taken. So a smaller sample is part of a larger one, and the order of the rows makes no difference.

    Args:
        rows: The rows.
        most: Most rows of the sample.
        seed: Key of the order of rows with one label.
    """
    if len(rows) <= most:
        return list(range(len(rows)))
    keys = [content_hash(["test sample", seed, row.hash]) for row in rows]
    sizes = Counter(row.label for row in rows)
    seen: Counter[str | None] = Counter()
    ranked: list[tuple[float, str, int]] = []
    for i in sorted(range(len(rows)), key=keys.__getitem__):
        label = rows[i].label
        ranked.append(((seen[label] + 0.5) / sizes[label], keys[i], i))
        seen[label] += 1
    return sorted(i for _, _, i in sorted(ranked)[:most])
