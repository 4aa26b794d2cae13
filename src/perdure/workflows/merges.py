"""The merges that the adapter which all tasks share comes from."""

from collections.abc import Iterator
from typing import Any

from perdure.core.slots import EDITS, view_of
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import MERGE


def begins_anew(entry: Entry) -> bool:
    """Return whether a learn began the weights that all tasks share from the base model."""
    shared = bool(view_of({name: new for name, new in entry.slots.items() if new}).keys() - {EDITS})
    return entry.kind == "learn" and (entry.recipe or {}).get("start") == "base" and shared


def merges_in_force(ledger: Ledger, head: Entry) -> Iterator[Entry]:
    """Yield the merges that wrote what all tasks share at an entry, newest first."""
    for entry in ledger.ancestors(head):
        if entry.kind == "merge":
            yield entry
        if begins_anew(entry):
            return


def merge_of(ledger: Ledger, head: Entry, task: str) -> Entry | None:
    """Return the newest merge that added the adapter of `task` to what all tasks share; None where none did."""
    return next((entry for entry in merges_in_force(ledger, head) if task in about(entry)["adapters"]), None)


def about(merge: Entry) -> dict[str, Any]:
    """Return what a merge says of itself: how it was made, of which adapters, and the shape of the result."""
    return dict(merge.data[MERGE])
