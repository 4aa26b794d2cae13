"""Names of slots, and the view of each task.

    initial          the adapter that the workspace was made with, frozen; part of the base for all that follows
    skill            the shared adapter, which every task trains further
    sum:<task>       an adapter that is summed with the others
    task:<task>      an adapter that belongs to that task alone
    sum:<task>/repair, task:<task>/repair
                     what an update that was scaled down adds to an adapter that existed before it
    task:<task>/...  copies of the slots that were frozen under it when it was learned, so that they never change
    route:<task>     what the router knows of the task: moments of features of the bare base, which no weights depend on
    edits            edited facts, over every view
    dense            every weight of the model

A *view* is the slots that a request for one task goes through.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

INITIAL, SKILL, EDITS, DENSE, ROUTE = "initial", "skill", "edits", "dense", "route"
MEASURED = (
    ROUTE,
)  # slots `<name>:<task>` of what methods measured of a task; no view has them, as they are no weights

Content = TypeVar("Content")


def sum_slot(task: str) -> str:
    """Return the slot of an adapter that `task` adds to the sum."""
    return f"sum:{task}"


def task_slot(task: str, beneath: str = "") -> str:
    """Return the slot of `task` alone, or its slot that has the content of slot `beneath`, frozen under the adapter."""
    return f"task:{task}/{beneath}" if beneath else f"task:{task}"


def repair_slot(slot: str, task: str) -> str:
    """Return the slot beside the adapter in `slot` for an update of it by `task` that was scaled down, in the same views."""
    return f"{slot if slot.startswith('task:') else sum_slot(task)}/repair"


def measured_slot(slot: str, task: str) -> str:
    """Return the slot of what a method with this `Method.slot` measured of `task`."""
    return f"{slot}:{task}"


def is_measured(name: str) -> bool:
    """Return whether a slot has what a method measured of a task, and no weights."""
    return name.partition(":")[0] in MEASURED


def kind_of_slot(name: str) -> str:
    """Return what a slot is: the word before its task, "beneath" for a copy under one task's adapter, or "repair"."""
    if name.endswith("/repair"):
        return "repair"
    return "beneath" if "/" in name else name.partition(":")[0]


def measured_tasks(slots: Iterable[str], slot: str) -> dict[str, str]:
    """Return the slot of each task of which a method with this `Method.slot` measured something, in order of the tasks."""
    names = (name for name in slots if name.startswith(f"{slot}:"))
    return dict(sorted((name.partition(":")[2], name) for name in names))


def view_of(slots: Mapping[str, Content], task: str | None = None) -> dict[str, Content]:
    """Return the slots of one view: a task's own if it has some, else those that all tasks share; edits are in both.

    Args:
        slots: Content by slot.
        task: Name of the task; None for the shared view.
    """
    if task is not None and is_isolated(slots, task):
        own = {*own_slots(slots, task), EDITS}
        return {name: content for name, content in slots.items() if name in own}
    return {name: content for name, content in slots.items() if not (name.startswith("task:") or is_measured(name))}


def without_task(slots: Mapping[str, Content], task: str | None) -> dict[str, Content]:
    """Return a view with slot names that do not have the task, so that equal content gives equal state hashes."""
    own = task_slot(task) if task is not None else ""
    return {"task" + name.removeprefix(own) if own and name.startswith(own) else name: slots[name] for name in slots}


def own_slots(slots: Iterable[str], task: str) -> list[str]:
    """Return the slots that belong to `task` alone: its adapter, and what is frozen under the adapter."""
    own = task_slot(task)
    return [name for name in slots if name == own or name.startswith(f"{own}/")]


def isolated_tasks(slots: Iterable[str]) -> list[str]:
    """Return the tasks that have an adapter of their own, in order of their names."""
    return sorted(name.removeprefix("task:") for name in slots if name.startswith("task:") and "/" not in name)


def summed_tasks(slots: Iterable[str]) -> list[str]:
    """Return the tasks that have an adapter in the sum, in order of their names."""
    return sorted(name.removeprefix("sum:") for name in slots if name.startswith("sum:") and "/" not in name)


def is_isolated(slots: Mapping[str, Content], task: str | None) -> bool:
    """Return whether `task` has slots of its own."""
    return task is not None and task_slot(task) in slots


def is_dense(slot: str) -> bool:
    """Return whether a slot has all weights of the model, shared by all tasks or under one task's adapter."""
    return slot == DENSE or (slot.startswith("task:") and slot.endswith(f"/{DENSE}"))


def adapters_of_task(slots: Iterable[str], task: str) -> list[str]:
    """Return the slots of adapters that only `task` trained: its own, the one in the sum, and a repaired update."""
    known = list(slots)
    going = {*own_slots(known, task), sum_slot(task), repair_slot(sum_slot(task), task)}
    return [name for name in known if name in going]


def slots_of_task(slots: Iterable[str], task: str) -> list[str]:
    """Return the slots that a revert of `task` removes: the adapters that only it trained, and what was measured of it."""
    known = list(slots)
    going = {*adapters_of_task(known, task), *(measured_slot(slot, task) for slot in MEASURED)}
    return [name for name in known if name in going]
