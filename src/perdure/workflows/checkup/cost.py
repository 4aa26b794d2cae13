"""What a checkup costs before it starts, and how many rows of each guard fit a number of seconds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.data.guard_order import pieces
from perdure.ledger import Entry
from perdure.ledger.records import Guard, GuardsVerdict, Score
from perdure.ledger.records.guards_verdict import DRIFT
from perdure.workflows.guards.measure import budgets_of, score_guard
from perdure.workflows.session import Session

FIRST = 1  # pieces that are scored at the reference to learn what a row costs
MEAN = "mean"  # the mean over abilities, among what a larger budget decides
LEAST_SPREAD = 0.1  # of a guard whose scored rows are all alike: a spread of nothing would get no rows at all


@dataclass(frozen=True)
class Planned:
    """What is to be scored of one guard.

    Args:
        guard: The guard.
        n: Number of rows.
        missing: Number of rows that have to be scored, at the reference and at the entry together.
        seconds: Seconds that a row took at the reference; None where no row was scored yet.
        spread: Standard deviation of the scored rows' items.
    """

    guard: Guard
    n: int
    missing: int
    seconds: float | None
    spread: float

    @property
    def cost(self) -> float | None:
        """Seconds that the missing rows take; None where no row was timed."""
        return 0.0 if not self.missing else None if self.seconds is None else self.seconds * self.missing


def plan(session: Session, guards: Sequence[Guard], entry: Entry, budget: Mapping[str, int]) -> tuple[Planned, ...]:
    """Return what is to be scored of each guard, with what it costs.

    Args:
        session: Of the workspace.
        guards: The guards.
        entry: The entry.
        budget: Number of rows by guard.
    """
    return tuple(_planned(session, guard, entry, budget.get(guard.name, 0)) for guard in guards)


def total(planned: Sequence[Planned]) -> float | None:
    """Return the seconds of a plan; None where a guard has no timed row."""
    costs = [one.cost for one in planned]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def decided_with(verdict: GuardsVerdict | None, wanted: Mapping[str, int]) -> tuple[str, ...]:
    """Return the guards that a larger budget would decide if their drops stay as they are, and "mean" for the mean drop.

    Args:
        verdict: The verdict so far; None without guards.
        wanted: Number of rows by guard, in the larger budget.
    """
    if verdict is None:
        return ()
    more = {one.guard: wanted.get(one.guard, 0) - one.n for one in verdict.guards}
    found = [
        one.guard
        for one in verdict.guards
        if one.verdict == "inconclusive" and one.more_items is not None and one.more_items <= more[one.guard]
    ]
    mean = verdict.mean
    if mean is not None and mean.more_items is not None:
        seen = [one.guard for one in verdict.guards if one.verdict != "blind" and one.ability != DRIFT]
        if min(more[name] for name in seen) >= mean.more_items:
            found.append(MEAN)
    return tuple(found)


def items_in(session: Session, guards: Sequence[Guard], entry: Entry, seconds: float) -> dict[str, int]:
    """Return how many rows of each guard fit a number of seconds.

    The shares give the mean over guards the smallest error: n proportional to spread / sqrt(seconds a row).
    A guard that was never scored is scored on its first piece, to learn what a row costs.

    Args:
        session: Of the workspace.
        guards: The guards.
        entry: The entry.
        seconds: The seconds, of the reference and the entry together.

    Source: Neyman, "On the Two Different Aspects of the Representative Method", JRSS 1934. Deviation: the spread is that of
        the items at the reference, not of their change, which is not known before.
    """
    for guard in guards:
        ends = [piece.stop for piece in pieces(0, guard.items.full, budgets_of(guard))]
        if ends and _stored(session, guard, session.ledger.entry(guard.reference)) is None:
            score_guard(session, guard, session.ledger.entry(guard.reference), ends[FIRST - 1])
    found = plan(session, guards, entry, {guard.name: guard.items.full for guard in guards})
    pairs = 1.0 if all(one.guard.reference == entry.id for one in found) else 2.0
    wanted = {one.guard.name: one.spread / math.sqrt(pairs * (one.seconds or 1e-3)) for one in found}
    price = {one.guard.name: pairs * (one.seconds or 1e-3) for one in found}
    most = {one.guard.name: one.guard.items.full for one in found}
    numbers = _shares(wanted, price, most, seconds)
    return {one.guard.name: _rounded(one.guard, numbers[one.guard.name]) for one in found}


def _shares(
    wanted: Mapping[str, float], price: Mapping[str, float], most: Mapping[str, int], seconds: float
) -> dict[str, float]:
    """Return numbers in proportion to `wanted` whose prices sum to `seconds`; what is above `most` goes to the others."""
    left, room = dict(wanted), seconds
    numbers: dict[str, float] = {}
    while left:
        scale = room / sum(left[name] * price[name] for name in left)
        full = [name for name in left if scale * left[name] >= most[name]]
        if not full:
            return numbers | {name: scale * share for name, share in left.items()}
        for name in full:
            numbers[name] = float(most[name])
            room = max(room - most[name] * price[name], 0.0)
            del left[name]
    return numbers


def _rounded(guard: Guard, number: float) -> int:
    """Return the last boundary of pieces that is at most `number`; the first one where it is below that."""
    ends = [piece.stop for piece in pieces(0, guard.items.full, budgets_of(guard))]
    return max((end for end in ends if end <= number), default=ends[0] if ends else 0)


def _planned(session: Session, guard: Guard, entry: Entry, n: int) -> Planned:
    reference = session.ledger.entry(guard.reference)
    then, now = (_stored(session, guard, one) for one in (reference, entry))
    ledger = session.ledger
    places = {ledger.seen(one, None): score for one, score in ((reference, then), (entry, now))}
    missing = sum(max(n - (score.n if score else 0), 0) for score in places.values())
    timed = then or now
    seconds = timed.seconds / timed.n if timed else None
    mean = timed.score if timed else 0.5
    spread = math.sqrt(sum((item - mean) ** 2 for item in timed.items) / timed.n) if timed else 0.5
    return Planned(guard, n, missing, seconds, max(spread, LEAST_SPREAD))


def _stored(session: Session, guard: Guard, entry: Entry) -> Score | None:
    task = session.tasks.get(guard.name, guard.version)
    return session.ledger.score(session.ledger.seen(entry, None), guard.score_version, task.scoring)
