"""Which state of methods still holds after a merge."""

from perdure.ledger import Entry, Ledger


def unchanged_state(ledger: Ledger, head: Entry) -> tuple[str | None, tuple[str, ...]]:
    """Return the object with the methods' state that is not about trained weights, and notices of the methods that lose theirs.

    State about weights (Fisher information, anchors) belongs to the adapter that was measured, which a merge replaces.
    """
    if head.state is None:
        return None, ()
    tensors = ledger.objects.get(head.state)
    tied = {name.partition("/")[0] for name in tensors if _tied(name.partition("/")[2])}
    left = {name: value for name, value in tensors.items() if name.partition("/")[0] not in tied}
    if not tied:
        return head.state, ()
    notice = (
        f"{', '.join(sorted(tied))}: what was measured of the weights that are merged now is left out of the next learn"
    )
    return (ledger.objects.put(left) if left else None), (notice,)


def _tied(key: str) -> bool:
    """Return whether a key of a state belongs to a parameter: `<what>.<parameter>`."""
    return "." in key and key.partition(".")[0].isidentifier()
