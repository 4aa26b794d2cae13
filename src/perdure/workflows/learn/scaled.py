"""A learned update, scaled: base + what head had + scale x (what was learned - what head had)."""

from typing import TYPE_CHECKING

from perdure.core.errors import BadInput
from perdure.core.slots import EDITS, is_dense, is_measured, repair_slot
from perdure.ledger import Entry, Ledger
from perdure.workflows.state_of_weights import methods_about_weights, methods_of

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
        BadInput: It trained every weight, or took adapters of head away.
    """
    from perdure.maths.low_rank import from_tensors, to_tensors

    parent = ledger.entry(str(entry.parent))
    known, slot = ledger.slots(parent), trained_slot(ledger, entry)
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


def scaled_state(ledger: Ledger, entry: Entry) -> tuple[str | None, tuple[str, ...]]:
    """Return the object with the methods' state that holds beside a scaled update, and notices of what it lacks.

    What a method measured of the weights that were learned (Fisher information, anchors) does not hold for a share of the
    update, and the rows to measure again are not at hand. The method goes on with what it had before the learn, which belongs
    to the adapter that a later learn continues: one that was trained further stays as it was. State about other things, such as
    the directions of a task's inputs, stays as the whole update measured it.

    Args:
        ledger: Of the workspace.
        entry: A learn or the candidate of one.
    """
    before = _state_before(ledger, ledger.entry(str(entry.parent)))
    if entry.state is None or entry.state == before:
        return entry.state, ()
    new = ledger.objects.get(entry.state)
    tied, task = methods_about_weights(new), ledger.shown_name(str(entry.task))
    rest = [name for name in methods_of(new) if name not in tied]
    notices = [f"{', '.join(rest)}: what was measured of {task} is of the whole update"] if rest else []
    if not tied:
        return entry.state, tuple(notices)
    notices.append(
        f"{', '.join(tied)}: what was measured of the weights that learned {task} does not hold for the scaled update, and is "
        f"left out: later learns protect the tasks before {task} with it, and not {task}"
    )
    old = ledger.objects.get(before) if before else {}
    left = {name: value for name, value in new.items() if name.partition("/")[0] not in tied}
    left |= {name: value for name, value in old.items() if name.partition("/")[0] in tied}
    return (ledger.objects.put(left) if left else None), tuple(notices)


def _state_before(ledger: Ledger, parent: Entry) -> str | None:
    return next((entry.state for entry in ledger.ancestors(parent) if entry.kind == "learn"), None)
