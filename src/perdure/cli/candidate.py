"""`perdure accept` and `perdure discard`: decide on the candidate of a failed gate."""

from typing import TYPE_CHECKING

from perdure.cli.options import AsJson, Folder, open_workspace
from perdure.cli.output import emit, print_text, short

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger


def accept(folder: Folder = None, as_json: AsJson = False) -> None:
    """Accept the candidate of a failed gate: it becomes head.

    Example: perdure accept
    """
    ws = open_workspace(folder)
    already = ws.ledger.accepted() is not None
    entry = ws.accept()
    if as_json:
        return emit({"entry": entry.id, "task": entry.task, "accepted": True, "already": already})
    if already:
        return print_text(f"head is {short(entry.id)}, accepted before; nothing is changed")
    print_text(f"head is {short(entry.id)} now ({_what(ws.ledger, entry)}, accepted against its gate)")


def discard(folder: Folder = None, as_json: AsJson = False) -> None:
    """Discard the candidate of a failed gate; head stays.

    Example: perdure discard
    """
    ws = open_workspace(folder)
    entry = ws.discard()
    if as_json:
        ids = {"entry": entry.id, "task": entry.task} if entry else {"entry": None, "task": None}
        return emit({**ids, "accepted": False, "already": entry is None})
    if entry is None:
        return print_text("no candidate waits; nothing is changed")
    print_text(f"dropped {short(entry.id)} ({_what(ws.ledger, entry)}); 'perdure gc' frees its space")


def _what(ledger: "Ledger", entry: "Entry") -> str:
    return f"{entry.kind} {ledger.shown_name(entry.task)}" if entry.task else entry.kind
