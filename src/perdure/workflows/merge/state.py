"""Which state of methods still holds after a merge."""

from perdure.ledger import Entry, Ledger
from perdure.workflows.state_of_weights import methods_about_weights


def unchanged_state(ledger: Ledger, head: Entry) -> tuple[str | None, tuple[str, ...]]:
    """Return the object with the methods' state that is not about trained weights, and notices of the methods that lose theirs.

    State about weights (Fisher information, anchors) belongs to the adapter that was measured, which a merge replaces.
    """
    if head.state is None:
        return None, ()
    tensors = ledger.objects.get(head.state)
    tied = methods_about_weights(tensors)
    left = {name: value for name, value in tensors.items() if name.partition("/")[0] not in tied}
    if not tied:
        return head.state, ()
    notice = f"{', '.join(tied)}: what was measured of the weights that are merged now is left out of the next learn"
    return (ledger.objects.put(left) if left else None), (notice,)
