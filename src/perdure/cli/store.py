"""`perdure verify` and `perdure gc`: is the store sound, and what in it is loose."""

import typer

from perdure.cli.options import AsJson, Folder, open_workspace
from perdure.cli.output import counted, emit, say
from perdure.cli.progress import progress


def verify(folder: Folder = None, as_json: AsJson = False) -> None:
    """Hash everything again: entries, objects, rows, and the base model. Exits with 1 if something is not as recorded."""
    ws = open_workspace(folder)
    with progress("hashing entries, objects and the base model"):
        found = ws.verify()
    if as_json:
        emit(found)
    else:
        typer.echo(f"{counted(found['entries'], 'entry')} and {counted(found['objects'], 'object')} checked")
        for problem in found["problems"]:
            say(f"problem: {problem}", fg=typer.colors.RED)
    if not found["ok"]:
        raise typer.Exit(1)
    if not as_json:
        typer.echo("all is as it was recorded")


def gc(folder: Folder = None, as_json: AsJson = False) -> None:
    """Delete the objects that no entry and no candidate names."""
    found = open_workspace(folder).gc()
    if as_json:
        return emit(found)
    typer.echo(f"{counted(found['removed'], 'object')} removed, {found['bytes']:,} bytes freed")
