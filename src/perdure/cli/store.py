"""`perdure verify` and `perdure gc`: check the store, and free its unused space."""

import typer

from perdure.cli.options import AsJson, Device, Folder, open_workspace
from perdure.cli.output import counted, emit, print_message, print_text
from perdure.cli.progress import progress


def verify(folder: Folder = None, device: Device = None, as_json: AsJson = False) -> None:
    """Hash everything again: entries, objects, rows, tasks, and the base model. Exits with 1 if something is not as recorded.

    A score is checked against its items alone. Notes, the reflog and what the model answered have no hash.

    Example: perdure verify
    """
    from perdure.workflows import upkeep

    ws = open_workspace(folder, device)
    with progress("hashing entries, objects and the base model") as tick:
        report = upkeep.verify(ws.session, tick)
    if as_json:
        emit(report.to_json())
    else:
        print_text(f"{counted(report.entries, 'entry')} and {counted(report.objects, 'object')} checked")
        for problem in report.problems:
            print_message(f"problem: {problem}", fg=typer.colors.RED)
    if not report.ok:
        raise typer.Exit(1)
    if not as_json:
        print_text("all that has a hash is as it was recorded; notes, the reflog and the model's answers have none")


def gc(folder: Folder = None, as_json: AsJson = False) -> None:
    """Delete what no entry and no candidate needs: objects, rows, scores, and checkpoints of learns from another head.

    Example: perdure gc
    """
    from perdure.workflows import upkeep

    removed = upkeep.gc(open_workspace(folder).session)
    if as_json:
        return emit(removed.to_json())
    counts = {"object": removed.removed, "record": removed.rows, "checkpoint": removed.runs}
    gone = ", ".join(counted(count, word) for word, count in counts.items() if count or word == "object")
    print_text(f"{gone} removed, {removed.bytes:,} bytes freed")
