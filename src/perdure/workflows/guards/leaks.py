"""Rows of guards that ask what the model was trained on: these are left out of what is scored, and never remembered."""

from collections.abc import Iterable, Sequence

from perdure.core.rows import Row, RowName
from perdure.ledger import Entry, Ledger
from perdure.workflows.known_rows import LEARNED, KnownRows


def leaked_rows(ledger: Ledger, entry: Entry, rows: Sequence[Row]) -> set[str]:
    """Return the hashes of the rows of a guard that a train or validation part or a memory asks too, at an entry or before it.

    Args:
        ledger: The ledger.
        entry: An entry or a draft.
        rows: Rows of a guard.
    """
    known = KnownRows.of(ledger, entry, rows)
    taught = known.questions(LEARNED) | known.hashes(LEARNED)
    memories = {one.memory for one in ledger.ancestors(entry) if one.memory}
    taught |= ledger.remembered(memories, {name for row in rows for name in (*row.questions, row.hash)})
    return {row.hash for row in rows if taught & {*row.questions, row.hash}}


def guarded_questions(ledger: Ledger, rows: Iterable[Row | RowName]) -> set[str]:
    """Return the questions of those of some rows that a guard of the workspace asks too; memory must not have them."""
    versions = {guard.version for guard in ledger.guards()}
    if not versions:
        return set()
    given = list(rows)
    places = [place for place in ledger.places_of(given) if place.version in versions]
    asked = {name for place in places for name in (place.question, place.hash)}
    return {row.question for row in given if asked & {*row.questions, row.hash}}
