"""`perdure verify` and `perdure gc`: check the store, and free its unused space."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.options import AsJson, Device, Folder, open_workspace
from perdure.cli.output import clock, counted, emit, print_message, print_text, short, table
from perdure.cli.progress import progress
from perdure.cli.stdin import at_terminal
from perdure.core.errors import BadInput

if TYPE_CHECKING:
    from perdure.ledger.records import LogEntry


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


def gc(
    abandoned: Annotated[
        bool, typer.Option("--abandoned", help="Delete the entries too that no ref and no candidate reaches.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what --abandoned lists, without a question.")] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Delete what no entry and no candidate needs: objects, rows, scores, and checkpoints of learns from another head.

    With --abandoned, the entries that were rolled back and the lines of discarded candidates are listed and, on consent, deleted
    with all that only they need. What a ref or a candidate reaches stays.

    Example: perdure gc --abandoned
    """
    from perdure.workflows import upkeep

    ws = open_workspace(folder)
    if yes and not abandoned:
        raise typer.BadParameter("--yes answers the question of --abandoned; give both")
    lines = ws.abandoned() if abandoned else []
    if lines and not yes:
        _confirm(lines)
    removed = upkeep.gc(ws.session, [line.entry for line in lines])
    if as_json:
        return emit(removed.to_json())
    if abandoned:
        print_text(f"{counted(removed.entries, 'abandoned entry')} removed")
    counts = {"object": removed.removed, "record": removed.rows, "checkpoint": removed.runs}
    gone = ", ".join(counted(count, word) for word, count in counts.items() if count or word == "object")
    print_text(f"{gone} removed, {removed.bytes:,} bytes freed")


def _confirm(lines: "Sequence[LogEntry]") -> None:
    """List the entries that would be deleted, and ask.

    Raises:
        BadInput: Nobody can answer.
        Abort: The answer is no.
    """
    rows = [
        [short(line.entry), clock(line.time), line.kind, line.task or "", "discarded" if line.discarded else ""]
        for line in lines
    ]
    print_message(table(["entry", "time (UTC)", "kind", "task", ""], rows))
    if not at_terminal():
        raise BadInput(f"nothing is deleted: {counted(len(lines), 'entry')} cannot be restored afterwards; add --yes")
    typer.confirm("Delete them? They cannot be restored", abort=True, err=True)
