"""The merges that the adapter which all tasks share comes from."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from perdure.core.slots import EDITS, summed_tasks, task_slot, view_of
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


def merges_of(ledger: Ledger, head: Entry, task: str) -> list[Entry]:
    """Return the merges, newest first, that added an adapter of `task` to what all tasks share at an entry."""
    return [entry for entry in merges_in_force(ledger, head) if task in added_tasks(entry)]


def added_tasks(merge: Entry) -> set[str]:
    """Return the tasks whose adapters a merge added: those that it names, and those of a sum that lay under these."""
    return {*about(merge)["adapters"], *summed_tasks(name for name, new in merge.slots.items() if new is None)}


def own_merge_of(ledger: Ledger, head: Entry, task: str) -> Entry | None:
    """Return the newest merge that added the adapter which `task` has of its own at an entry, or what that went on from.

    It is None where the adapter was begun after the merges, as after one that dropped the former: it has nothing of theirs.
    """
    slot = task_slot(task)
    merge = next((entry for entry in merges_of(ledger, head, task) if task in about(entry)["adapters"]), None)
    if merge is None or slot not in ledger.slots(merge):
        return None
    since = takewhile(lambda entry: entry.id != merge.id, ledger.ancestors(head))
    return None if any(slot in entry.slots and entry.slots[slot] is None for entry in since) else merge


def about(merge: Entry) -> dict[str, Any]:
    """Return what a merge says of itself: how it was made, of which adapters, and the shape of the result."""
    return dict(merge.data[MERGE])
