"""Choice of the rows from memory for an update."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from perdure.core.keyed import keyed


@dataclass
class Server:
    """Draws rows of one pool evenly: the row that was drawn least comes first, and among equals the row nearest in length.

    Args:
        groups: Group of each row (its label, its task, or itself); all groups are drawn equally often.
        lengths: Tokens of each row.
        served: Number of draws of each row so far; part of a checkpoint.

    Where the rule leaves a choice, rows of matching length are taken, since padding costs time. Over n draws every group is drawn
    n / groups times, to within one.
    """

    groups: Sequence[Hashable]
    lengths: Sequence[int]
    served: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.served = self.served or [0] * len(self.groups)

    def serve(self, size: int, length: int, *key: object) -> list[int]:
        """Return the indices of `size` rows (all of them when there are fewer), each at most once, and count the draw.

        Args:
            size: Number of rows.
            length: Tokens of the longest row of the batch they join.
            *key: Key of this draw, such as seed, task, pool and update.
        """
        chance = keyed(*key).random(len(self.groups))
        by_group: dict[Hashable, list[int]] = {}
        for i, group in enumerate(self.groups):
            by_group.setdefault(group, []).append(i)
        for members in by_group.values():
            members.sort(key=lambda i: (self.served[i], self._misfit(i, length), chance[i]), reverse=True)
        spent = {group: sum(self.served[i] for i in members) for group, members in by_group.items()}
        chosen: list[int] = []
        while len(chosen) < min(size, len(self.groups)):
            open_groups = [group for group, members in by_group.items() if members]
            least = min(spent[group] for group in open_groups)
            best = min(
                (group for group in open_groups if spent[group] == least),
                key=lambda g: (self._misfit(by_group[g][-1], length), chance[by_group[g][-1]]),
            )
            chosen.append(by_group[best].pop())
            spent[best] += 1
        for i in chosen:
            self.served[i] += 1
        return chosen

    def _misfit(self, i: int, length: int) -> int:
        """Padding that row i causes in a batch of `length`: its own, or that of every other row (counted double)."""
        gap = self.lengths[i] - length
        return 2 * gap if gap > 0 else -gap


def chances(weights: Sequence[float], size: int) -> np.ndarray:
    """Return each row's probability (rows,) to be among `size` rows of `by_weight`: in proportion to its weight, at most 1.

    A row that would be drawn more than once is certain, and the others share the rest. A row of weight 0 is never drawn, so
    that the chances sum to `size`, or to the number of the other rows where that is smaller.
    """
    given = np.asarray(weights, dtype=float)
    size = min(size, int(np.count_nonzero(given)))
    certain = np.zeros(len(given), dtype=bool)
    while True:
        open_ = np.where(certain, 0.0, given)
        made = np.where(certain, 1.0, (size - certain.sum()) * open_ / max(open_.sum(), 1e-300))
        if not (made > 1).any():
            return made
        certain |= made >= 1


def by_weight(weights: Sequence[float], size: int, *key: object) -> list[int]:
    """Return `size` different rows, each drawn with exactly its `chances`.

    The chances are concatenated in a keyed order, and rows are taken at equal steps from a keyed start.

    Source: Madow, "On the theory of systematic sampling, II", Annals of Mathematical Statistics 1949, doi
    10.1214/aoms/1177729988. Exact chances make a sum over the drawn rows, each divided by its chance, unbiased.
    """
    made, rng = chances(weights, size), keyed(*key)
    order = rng.permutation(len(made))
    ends = made[order].cumsum()
    marks = rng.random() + np.arange(round(made.sum()))
    places = np.searchsorted(ends, np.minimum(marks, ends[-1] - 1e-9), side="right") if len(marks) else []
    return list(dict.fromkeys(int(order[place]) for place in places))
