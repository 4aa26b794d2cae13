"""The plan of the adapter that a learn trains. It needs the names of slots, and no loaded model."""

from collections.abc import Mapping
from typing import TypeVar

from perdure.core.plan import AdapterPlan, Bare
from perdure.core.recipe import Recipe
from perdure.core.slots import EDITS, INITIAL, MEASURED, measured_slot, own_slots, view_of

Content = TypeVar("Content")


def usable_slots(slots: Mapping[str, Content], recipe: Recipe, task: str) -> dict[str, Content]:
    """Return the slots that training continues or keeps frozen below; edits are carried over at the end.

    Where training starts from the base, these are the adapter that the workspace was made with and the slots of other single
    tasks: what all tasks share is begun anew, and the adapter of the task itself too.
    """
    anew = {EDITS}
    if recipe.settings.start == "base":
        anew |= {*view_of(slots), *own_slots(slots, task), *(measured_slot(slot, task) for slot in MEASURED)}
        anew -= {INITIAL}
    return {name: content for name, content in slots.items() if name not in anew}


def planned_adapter(slots: Mapping[str, object], recipe: Recipe, task: str, seed: int) -> AdapterPlan | None:
    """Return the plan of the adapter that a recipe trains: its slot and the frozen slots below it.

    It is None where every weight is trained, and where none is.

    Args:
        slots: See `usable_slots`; only the names are read.
        recipe: Its owner of `adapter` decides.
        task: Name of the task.
        seed: Seed of the workspace.
    """
    if recipe.settings.train != "lora":
        return None
    return recipe.adapter_plan(Bare(task, seed, recipe.settings, {}, {name: {} for name in slots}), {})


def is_first(slots: Mapping[str, object], adapter: AdapterPlan | None) -> bool:
    """Return whether what trains begins on the base model alone, so that it has no task before it.

    Args:
        slots: Those that training may go on from or lie over.
        adapter: What `planned_adapter` returned.
    """
    return not view_of(slots) if adapter is None else adapter.is_first(slots)
