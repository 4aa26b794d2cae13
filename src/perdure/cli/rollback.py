"""`perdure rollback`: move head."""

from typing import Annotated

import typer

from perdure.cli.names import entry_names
from perdure.cli.options import AsJson, Folder, open_workspace
from perdure.cli.output import emit, print_text, short


def rollback(
    ref: Annotated[
        str,
        typer.Argument(metavar="REF", autocompletion=entry_names, help="Ref, entry id or its beginning, or head~1."),
    ],
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Move head to REF, with its model and its memory. Nothing is deleted: the same command moves head forward again.

    Example: perdure rollback head~1
    """
    ws = open_workspace(folder)
    before = ws.ledger.resolve("head")
    entry = ws.rollback(ref)
    if as_json:
        return emit({"entry": entry.id, "before": before.id})
    what = f"{entry.kind} {entry.task or ''}".rstrip()
    if before.id == entry.id:
        return print_text(f"head is {short(entry.id)} already ({what})")
    print_text(
        f"head is {short(entry.id)} now ({what}); 'perdure rollback {short(before.id)}' goes back to where it was"
    )
