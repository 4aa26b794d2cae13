"""The one order of a guard's rows: the first n of it are what a budget of n items scores, so that budgets are nested."""

from collections.abc import Sequence
from itertools import pairwise

from perdure.core.canonical import content_hash
from perdure.core.rows import Row

STEP = 50  # items; every multiple of it ends a piece


def in_order(rows: Sequence[Row], seed: int = 0) -> tuple[Row, ...]:
    """Return the rows in an order by their hashes, one row of each group in turn, or of each label where there are no groups.

    The order depends on neither the order of the rows nor the name of the guard.

    Args:
        rows: The rows.
        seed: Key of the order.
    """
    keys = {row.hash: content_hash(["guard order", seed, row.hash]) for row in rows}
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: keys[row.hash]):
        groups.setdefault(_group(row), []).append(row)
    names = sorted(groups, key=lambda name: content_hash(["guard group", seed, name]))
    rounds = max(map(len, groups.values()), default=0)
    return tuple(groups[name][i] for i in range(rounds) for name in names if i < len(groups[name]))


def pieces(start: int, end: int, boundaries: Sequence[int]) -> list[range]:
    """Return the pieces in which the rows from `start` to `end` are scored.

    Pieces end at fixed boundaries: the guard's own budgets and the multiples of `STEP`. A row is thus always scored in a batch
    with the same rows, whatever the budget, and gets the same item to the bit.

    Args:
        start: Number of rows that are scored already: 0 or a boundary.
        end: Number of rows to have scored: a boundary.
        boundaries: The guard's own budgets.
    """
    cuts = sorted({start, end} | {cut for cut in (*boundaries, *range(0, end, STEP)) if start < cut < end})
    return [range(a, b) for a, b in pairwise(cuts)]


def boundary(items: int, budgets: Sequence[int], rows: int) -> int:
    """Return the smallest boundary of pieces that is at least `items`; the number of rows at most."""
    cuts = {*budgets, *range(STEP, items + STEP, STEP), rows}
    return min(cut for cut in cuts if cut >= min(items, rows)) if items > 0 else 0


def _group(row: Row) -> str:
    return row.group or row.label or ""
