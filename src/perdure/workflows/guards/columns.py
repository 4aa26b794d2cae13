"""What was measured of each guard, entry by entry."""

from collections.abc import Sequence

from perdure.evaluate.blindness import is_blind
from perdure.evaluate.matrix import GuardColumn
from perdure.evaluate.subset import over_rows
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Guard, Score
from perdure.workflows.guards.groups import groups_of_score
from perdure.workflows.guards.leaks import leaked_rows


def guard_scores(ledger: Ledger, guard: Guard, entries: Sequence[Entry]) -> list[Score | None]:
    """Return the score of a guard at each entry, where it was measured, over the rows that all of these scores have.

    Rows that a train part or the memory of the last entry asks too are left out.
    """
    states = [ledger.seen(entry, None) for entry in entries]
    scoring = ledger.scoring([guard.version])[guard.version]
    stored = ledger.scores(states, [guard.score_version], {guard.score_version: scoring})
    found = [stored.get((state, guard.score_version)) for state in states]
    measured = [score for score in found if score is not None]
    if not measured:
        return found
    common = set.intersection(*(set(score.rows) for score in measured))
    test = [row for row in ledger.task_rows(guard.version, "test") if row.hash in common]
    rows = common - leaked_rows(ledger, entries[-1], test)
    return [None if score is None else over_rows(score, rows) for score in found]


def guard_columns(ledger: Ledger, entries: Sequence[Entry]) -> dict[str, GuardColumn]:
    """Return the column of each guard of a workspace in a matrix whose stages are these entries, the base first."""
    columns = {}
    for guard in ledger.guards():
        scores = guard_scores(ledger, guard, entries)
        n = next((score.n for score in scores if score), 0)
        values = tuple(score.score if score else None for score in scores)
        columns[guard.name] = GuardColumn(guard.ability, guard.reference, values, n, _blind(ledger, guard))
    return columns


def _blind(ledger: Ledger, guard: Guard) -> bool:
    """Return whether a guard cannot fall, by the score of its reference; False where that was not measured."""
    (before,) = guard_scores(ledger, guard, [ledger.entry(guard.reference)])
    return before is not None and blind_at(ledger, guard, before)


def blind_at(ledger: Ledger, guard: Guard, before: Score) -> bool:
    """Return whether a guard with this score at its reference cannot fall."""
    return is_blind(guard.ability, before.items, guard.chance, groups=groups_of_score(ledger, guard, before))
