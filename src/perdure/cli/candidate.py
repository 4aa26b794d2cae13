"""`perdure accept` and `perdure discard`: what a failed gate left aside."""

from perdure.cli.options import AsJson, Folder, open_workspace
from perdure.cli.output import emit, short, tell


def accept(folder: Folder = None, as_json: AsJson = False) -> None:
    """Make the candidate that a failed gate left aside the new head."""
    entry = open_workspace(folder).accept()
    if as_json:
        return emit({"entry": entry.id, "task": entry.task, "accepted": True})
    tell(f"head is {short(entry.id)} now (learn {entry.task}, accepted against its gate)")


def discard(folder: Folder = None, as_json: AsJson = False) -> None:
    """Drop the candidate that a failed gate left aside; head stays."""
    entry = open_workspace(folder).discard()
    if as_json:
        return emit({"entry": entry.id, "task": entry.task, "accepted": False})
    tell(f"dropped {short(entry.id)} (learn {entry.task}); 'perdure gc' frees its space")
