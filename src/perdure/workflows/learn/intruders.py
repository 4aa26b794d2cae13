"""A learned update without some of its intruder directions, in part or in whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.slots import EDITS, is_isolated, repair_slot, view_of
from perdure.ledger import Entry, Ledger
from perdure.workflows.learn.scaled import trained_slot
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.maths.intruders import Intruders
    from perdure.maths.low_rank import Patches

Slots = dict[str, str | None]


@dataclass(frozen=True)
class Reduction:
    """The intruder directions of a learned update.

    Args:
        count: How many there are, in all weights together.
        slots: Stores the update with a share of them left, and returns the slots that it leaves; edits are not among them.
    """

    count: int
    slots: Callable[[float], Slots]


def reduction(session: Session, entry: Entry, tick: Tick) -> Reduction:
    """Find the intruder directions of the update that an entry trained.

    They are directions of W + dW against W, with W the weight that the learn started from: the base model's and what lies under
    the adapter. The trained adapter stays as it is, and the correction goes into a slot beside it, so that the next learn
    continues from the adapter over the frozen correction. Experts stay as they are.

    Args:
        session: Of the workspace.
        entry: A learn or the candidate of one.
        tick: Called with (what, done, total) as work goes on.

    Raises:
        BadInput: It has none, or it is no update of one adapter; see `scaled.trained_slot`.

    Cost: two eigendecompositions of the smaller side of each weight.
    """
    from perdure.maths.intruders import intruders

    ledger = session.ledger
    parent, slot = ledger.entry(str(entry.parent)), trained_slot(ledger, entry)
    after = _view(ledger, entry, slot)
    before = {name: found for name, found in after.items() if name != slot}
    if slot in (known := ledger.slots(parent)):
        before[slot] = known[slot]
    old, new = _updates(ledger, before), _updates(ledger, after)
    session.load(ledger.resolve("base"))
    found: dict[str, Intruders] = {}
    for done, module in enumerate(sorted(new)):
        tick("looking for intruder directions", done, len(new))
        weight = session.runtime.weight(module)
        if weight.dim() == 2:
            start = weight + old[module].delta if module in old else weight
            found[module] = intruders(start, weight + new[module].delta)
    found = {module: one for module, one in found.items() if len(one)}
    if not found:
        raise BadInput(
            "no weight has an intruder direction: every leading singular vector is like one from before the learn, so that there "
            "is nothing to reduce; 'perdure learn --repair' scales the whole update"
        )
    beside = repair_slot(slot, str(entry.task))

    def slots(share: float) -> Slots:
        return {**_without_edits(entry), beside: _corrected(ledger, known.get(beside), found, share)}

    return Reduction(sum(map(len, found.values())), slots)


def _view(ledger: Ledger, entry: Entry, slot: str) -> dict[str, str]:
    """Return the slots that the update in `slot` is used with."""
    slots = ledger.slots(entry)
    task = entry.task if slot.startswith("task:") and is_isolated(slots, entry.task) else None
    return {name: found for name, found in view_of(slots, task).items() if name != EDITS}


def _updates(ledger: Ledger, slots: Mapping[str, str]) -> "Patches":
    from perdure.maths.low_rank import combine, from_tensors

    return combine([from_tensors(ledger.objects.get(slots[name])) for name in sorted(slots)])


def _without_edits(entry: Entry) -> Slots:
    return {name: value for name, value in entry.slots.items() if name != EDITS}


def _corrected(ledger: Ledger, before: str | None, found: "Mapping[str, Intruders]", share: float) -> str:
    """Store the correction, added to what an earlier repair left beside the adapter."""
    from perdure.maths.low_rank import combine, from_tensors, to_tensors

    earlier = [from_tensors(ledger.objects.get(before))] if before else []
    correction = {module: one.correction(share) for module, one in found.items()}
    return ledger.objects.put(to_tensors(combine([*earlier, correction])))
