"""A learned update, scaled: base + what head had + scale x (what was learned - what head had)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput
from perdure.core.slots import EDITS, is_dense, is_measured, repair_slot
from perdure.ledger import Entry, Ledger

if TYPE_CHECKING:
    from perdure.maths.low_rank import Patches

LOSSLESS = 1e-6  # relative error, Frobenius norm, up to which a lower rank counts as the same update


def scaled_slots(ledger: Ledger, entry: Entry, scale: float) -> dict[str, str | None]:
    """Store the update that an entry trained, scaled, and return the slots that it leaves; edits are not among them.

    An adapter that did not exist before is scaled as it is. One that was trained further stays as it was, and
    `scale` x (new - old) goes into a slot of its own beside it, of at most twice the rank. So the update is exact, the trained
    adapter keeps its rank, and the next learn continues from it over the frozen correction.

    Args:
        ledger: Of the workspace.
        entry: A learn or the candidate of one.
        scale: Share of the update, in (0, 1].

    Raises:
        BadInput: It trained every weight, took adapters of head away, or its methods keep a state about the trained weights.
    """
    from perdure.maths.low_rank import from_tensors, to_tensors

    parent = ledger.entry(str(entry.parent))
    known, slot = ledger.slots(parent), trained_slot(ledger, entry)
    refuse_state(ledger, entry, parent)
    slots = {name: value for name, value in entry.slots.items() if name != EDITS}
    new = from_tensors(ledger.objects.get(str(entry.slots[slot])))
    if slot not in known:
        return {**slots, slot: ledger.objects.put(to_tensors(times(new, scale)))}
    old = from_tensors(ledger.objects.get(known[slot]))
    beside = repair_slot(slot, str(entry.task))
    before = [from_tensors(ledger.objects.get(known[beside]))] if beside in known else []
    del slots[slot]
    return {**slots, beside: ledger.objects.put(to_tensors(difference(new, old, scale, before)))}


def trained_slot(ledger: Ledger, entry: Entry) -> str:
    """Return the slot of the adapter that a learn trained.

    Raises:
        BadInput: There is none, or not one alone.
    """
    known = ledger.slots(ledger.entry(str(entry.parent)))
    written = [n for n, value in entry.slots.items() if value is not None and n != EDITS and not is_measured(n)]
    if any(name in written for name in written if is_dense(name) and "/" not in name):
        raise BadInput(
            "this learn trained every weight (train: full); only the update of an adapter can be scaled. Learn again with an "
            "adapter, or with wise_ft, which interpolates all weights"
        )
    gone = [name for name, value in entry.slots.items() if value is None and name in known and name != EDITS]
    if gone:
        raise BadInput(
            f"this learn took {', '.join(gone)} away, as it began from the base (start: base) or left an adapter of its own; "
            "only an update of what head has can be scaled. 'perdure accept' or 'perdure discard' it"
        )
    trained = [name for name in written if "/" not in name and known.get(name) != entry.slots[name]]
    if len(trained) != 1:
        raise BadInput(
            f"entry {entry.id[:12]} wrote {', '.join(trained) or 'no adapter'}; only the update of one adapter can be scaled"
        )
    return trained[0]


def times(patches: "Patches", scale: float) -> "Patches":
    """Return patches whose updates are multiplied by `scale`; the factor `scale` of each patch stays."""
    from perdure.maths.low_rank import Patch

    return {name: Patch(patch.down, patch.up * scale, patch.scale) for name, patch in patches.items()}


def difference(new: "Patches", old: "Patches", scale: float, before: "list[Patches]") -> "Patches":
    """Return `scale` x (new - old) + what was there before, of the rank of `new` where that loses nothing."""
    from perdure.maths.low_rank import combine, relative_error, truncate

    whole = combine([*before, times(new, scale), times(old, -scale)])
    rank = max(patch.rank for patch in new.values())
    smaller = {name: truncate(patch, rank) for name, patch in whole.items()}
    return smaller if relative_error(whole, smaller) <= LOSSLESS else whole


def refuse_state(ledger: Ledger, entry: Entry, parent: Entry) -> None:
    """Refuse an entry whose methods measured the weights that it trained, for the next task: others would not fit these."""
    if entry.state is None or entry.state == _state_before(ledger, parent):
        return
    methods: Mapping[str, None] = dict.fromkeys(name.split("/")[0] for name in ledger.objects.get(entry.state))
    raise BadInput(
        f"{', '.join(methods)} measured the weights that were learned, for the next task; a scaled update has others. "
        "'perdure accept' or 'perdure discard' it, or learn again with a lower learning_rate"
    )


def _state_before(ledger: Ledger, parent: Entry) -> str | None:
    return next((entry.state for entry in ledger.ancestors(parent) if entry.kind == "learn"), None)
