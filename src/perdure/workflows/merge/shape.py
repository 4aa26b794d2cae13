"""The settings by which a later learn goes on with a merged adapter."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perdure.ledger import Entry, Ledger
from perdure.workflows.merges import about

if TYPE_CHECKING:
    from perdure.maths.low_rank import Patch

Shape = dict[str, Any]


def shape_of(ledger: Ledger, head: Entry, written: Sequence[str], patches: "Mapping[str, Patch]") -> Shape:
    """Return rank, scale and modules of a merged adapter as settings of a recipe.

    Args:
        ledger: Of the workspace.
        head: The entry that it was made on.
        written: Slots that it was made from.
        patches: The merged adapter.
    """
    one = next(iter(patches.values()))
    return {
        "lora_r": one.rank,
        "lora_alpha": one.scale * one.rank,
        "use_rslora": False,
        "lora_target_modules": _modules(ledger, head, written) or sorted(patches),
    }


def _modules(ledger: Ledger, head: Entry, written: Sequence[str]) -> str | list[str] | None:
    """Return the modules as the learns named them that wrote these slots; None where they differ."""
    from perdure.core.settings import Settings

    line = ledger.ancestors(head)
    writers = [next(entry for entry in line if entry.slots.get(name)) for name in written]
    default = Settings.model_fields["lora_target_modules"].default
    names = [_named(entry, default) for entry in writers]
    return names[0] if all(name == names[0] for name in names) else None


def _named(writer: Entry, default: object) -> Any:
    """Return the modules as an entry names them; None where it does not."""
    if writer.kind == "merge":
        return about(writer)["shape"]["lora_target_modules"]
    return None if writer.recipe is None else writer.recipe.get("lora_target_modules", default)
