"""What a guard lost and gained, group by group: a model that became terse gains on short answers what it loses on long ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.core.records import Record


@dataclass(frozen=True)
class KindChange(Record):
    """The rows of one group of a guard, as one kind of instruction or one subject, before and now.

    Args:
        kind: Name of the group.
        n: Number of its rows.
        before: Mean score at the reference.
        now: Mean score at the entry.
        gained: Number of rows that score more than at the reference.
        lost: Number of rows that score less.
    """

    kind: str
    n: int
    before: float
    now: float
    gained: int
    lost: int

    @property
    def changed(self) -> bool:
        """Whether a row of it changed."""
        return self.gained + self.lost > 0


def by_kind(groups: Sequence[str], before: Sequence[float], now: Sequence[float]) -> tuple[KindChange, ...]:
    """Return the change of each group, the groups that changed most first; nothing where each row is a group by itself.

    A group changed more than another by the number of rows gained less those lost, then by the number of rows that changed.

    Args:
        groups: The group of each row; empty where rows have none.
        before: Score of each row at the reference, in [0, 1].
        now: Score of each row at the entry.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(groups):
        places.setdefault(name, []).append(i)
    if len(places) == len(groups):
        return ()
    found = [_change(name, [before[i] for i in own], [now[i] for i in own]) for name, own in places.items()]
    return tuple(sorted(found, key=lambda one: (-abs(one.gained - one.lost), -one.gained - one.lost, one.kind)))


def _change(kind: str, before: Sequence[float], now: Sequence[float]) -> KindChange:
    n = len(before)
    gained = sum(b > a for a, b in zip(before, now, strict=True))
    lost = sum(b < a for a, b in zip(before, now, strict=True))
    return KindChange(kind, n, sum(before) / n, sum(now) / n, gained, lost)
