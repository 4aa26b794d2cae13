"""What the runtime loads for the slots of an entry."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from perdure.core.slots import EDITS
from perdure.ledger import Ledger

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet
    from perdure.editing.edit_tensors import Tensors


class SlotTensors(Mapping[str, "Tensors"]):
    """Tensors by slot, each read when it is looked at: a learn reads the slots it needs, however many tasks there are.

    Args:
        ledger: Where the objects are.
        slots: Object hash by slot.
    """

    def __init__(self, ledger: Ledger, slots: Mapping[str, str]):
        self.ledger, self.slots = ledger, slots

    def __getitem__(self, slot: str) -> "Tensors":
        return self.ledger.objects.get(self.slots[slot])

    def __iter__(self) -> Iterator[str]:
        return iter(self.slots)

    def __len__(self) -> int:
        return len(self.slots)


def tensors_of(ledger: Ledger, slots: Mapping[str, str]) -> "dict[str, Tensors]":
    """Return what the runtime loads for slot objects: the stored tensors, but for an edit set the factors solved from it."""
    from perdure.editing.edit_tensors import set_from_tensors

    tensors = {name: ledger.objects.get(object_hash) for name, object_hash in slots.items()}
    return {**tensors, **({EDITS: factors_of(set_from_tensors(tensors[EDITS]))} if EDITS in tensors else {})}


def factors_of(edit_set: "EditSet") -> "Tensors":
    """Return the update of an edit set as the tensors of a slot."""
    from perdure.maths.low_rank import to_tensors

    return to_tensors(edit_set.patches())
