"""The shape of an adapter that goes on: head's own, whatever the default of the recipe has become since."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perdure.core.recipe import Recipe
from perdure.core.settings import Settings
from perdure.ledger import Entry, Ledger
from perdure.workflows.learn.adapter import planned_adapter, usable_slots
from perdure.workflows.learn.changes import changes
from perdure.workflows.merges import about
from perdure.workflows.session import Session

SHAPE = ("lora_r", "lora_alpha", "use_rslora", "lora_target_modules")


def in_shape_of_head(session: Session, parent: Entry, recipe: Recipe, task: str) -> tuple[Recipe, list[str]]:
    """Return the recipe with rank, scale and modules of the adapter that it goes on training, and a notice where they differ.

    What the user changed of these stays as it is, and `check_recipe` compares it with the adapter.

    Args:
        session: Of the workspace.
        parent: The entry that the learn starts from.
        recipe: The recipe.
        task: Name of the task.
    """
    ledger, settings = session.ledger, recipe.settings
    if settings.start == "base":
        return recipe, []
    slots = usable_slots(ledger.slots(parent), recipe, task)
    adapter = planned_adapter(slots, recipe, task, session.seed)
    writer = _writer(ledger, parent, adapter.slot) if adapter and adapter.slot in slots else None
    made = _shape(writer) if writer else None
    if made is None:
        return recipe, []
    known = {key: made.get(key, Settings.model_fields[key].default) for key in SHAPE}
    mine = changes(session, recipe)
    different = {key: value for key, value in known.items() if key not in mine and getattr(settings, key) != value}
    if not different:
        return recipe, []
    shown = ", ".join(f"{key}: {value}" for key, value in different.items())
    notice = f"head's adapter goes on as it is ({shown}); the recipe {recipe.name} begins new ones in another shape"
    return replace(recipe, settings=settings.model_copy(update=different)), [notice]


def _writer(ledger: Ledger, entry: Entry, slot: str) -> Entry | None:
    """Return the learn or the merge that made a slot; None where another kind of entry wrote it since."""
    newest = next((one for one in ledger.ancestors(entry) if slot in one.slots), None)
    return newest if newest and newest.kind in ("learn", "merge") else None


def _shape(writer: Entry) -> Mapping[str, Any] | None:
    """Return the settings that have the shape of the adapter which an entry made."""
    return about(writer)["shape"] if writer.kind == "merge" else writer.recipe
