"""Which weights in force were trained on the rows of a task: its own adapters, and others that replayed or continued them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perdure.core.errors import BadSpec
from perdure.core.recipe import build_recipe
from perdure.core.slots import EDITS, SKILL, is_measured, slots_of_task
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import LearnRecord
from perdure.methods.registry import all_methods


@dataclass(frozen=True)
class Influence:
    """What in the weights of an entry comes from the rows of a task.

    Args:
        own: Slots that a revert of the task removes.
        others: The learns of weights in force, other than `own`, that trained on rows of the task or continued weights that had,
            oldest first.
        holding: The other slots of weights in force that have what learns of the task itself trained.
    """

    own: tuple[str, ...]
    others: tuple[Entry, ...]
    holding: tuple[str, ...] = ()

    @property
    def learned(self) -> tuple[str, ...]:
        """The tasks that `others` learned."""
        return tuple(dict.fromkeys(str(entry.task) for entry in self.others))


def influence(ledger: Ledger, entry: Entry, task: str) -> Influence:
    """Return what in the weights of an entry comes from the rows of a task.

    Weights that were trained over a frozen adapter of the task, without its rows, are not counted.

    Args:
        ledger: The ledger.
        entry: An entry or a draft.
        task: Name of the task.
    """
    slots = ledger.slots(entry)
    own = slots_of_task(slots, task)
    in_force = {
        name: slot for name, slot in slots.items() if name not in own and name != EDITS and not is_measured(name)
    }
    others: dict[str, Entry] = {}
    learns = _learns(ledger, entry)
    for slot in set(in_force.values()):
        others |= {one.id: one for one in learns.get(slot, ()) if trained_on(ledger, one, task)}
    order = [one.id for one in ledger.ancestors(entry)]
    holding = [name for name, slot in in_force.items() if any(one.task == task for one in learns.get(slot, ()))]
    return Influence(tuple(own), tuple(sorted(others.values(), key=lambda one: -order.index(one.id))), tuple(holding))


def _learns(ledger: Ledger, entry: Entry) -> dict[str, tuple[Entry, ...]]:
    """Return the learns that trained each stored object of weights, those included whose weights it continued."""
    learns: dict[str, tuple[Entry, ...]] = {}
    now: dict[str, str | None] = {}
    for one in reversed(ledger.ancestors(entry)):
        for name, slot in one.slots.items():
            if slot is None or slot in learns or name == EDITS or is_measured(name):
                continue
            if one.kind == "learn":
                continued = (one.recipe or {}).get("start") != "base"
                beside = name.removesuffix("/repair")  # what an update adds to an adapter that stays as it was
                known = [now.get(name), *([now.get(beside)] if beside != name else [])] if continued else []
                learns[slot] = (*_together(learns, known if any(known) else _copied(ledger, one, now)), one)
            elif one.kind == "merge":
                learns[slot] = _together(learns, _merged(one, now))
        now |= one.slots
    return learns


def _merged(merge: Entry, now: Mapping[str, str | None]) -> list[str | None]:
    """Return the objects that a merge read: the adapters it names, the sums it replaced, and what all tasks share."""
    named = {slot for part in merge.data["merge"]["adapters"].values() for slot in part}
    replaced = {name for name, slot in merge.slots.items() if slot is None and name.startswith("sum:")}
    return [
        slot
        for name, slot in now.items()
        if slot in named or name in replaced or not name.startswith(("task:", "sum:"))
    ]


def _copied(ledger: Ledger, learned: Entry, slots: Mapping[str, str | None]) -> list[str | None]:
    """Return the slots that a task's own adapter began as a copy of, or may have, by the field `start` of `per_task`."""
    start = (learned.recipe or {}).get("methods", {}).get("per_task", {}).get("start")
    if start == "shared":
        return [slots.get(SKILL)]
    if start != "nearest":
        return []
    record = ledger.note(learned.id, "record", LearnRecord)
    if record and record.copied:
        return [slots.get(record.copied)]
    return [
        slots[name] for name in slots if name.startswith("task:") and "/" not in name
    ]  # recorded by an older perdure


def _together(learns: Mapping[str, tuple[Entry, ...]], slots: Iterable[str | None]) -> tuple[Entry, ...]:
    """Return the learns of several slots, each once."""
    found = {one.id: one for slot in slots if slot is not None for one in learns.get(slot, ())}
    return tuple(found.values())


def trained_on(ledger: Ledger, learned: Entry, task: str) -> bool:
    """Return whether a learn trained on rows of a task: its own, those of all tasks, or those in memory."""
    if learned.task == task:
        return True
    before = ledger.entry(str(learned.parent))
    if (learned.recipe or {}).get("data") == "all":
        return task in before.tasks
    if before.memory is None or task not in ledger.manifest_tasks(before.memory):
        return False
    try:
        return bool(build_recipe(learned.recipe or {}, all_methods()).drawing)
    except BadSpec:  # a method of a package that is not here may have drawn rows
        return True
