"""`perdure export`: take a state out of the workspace."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.options import AsJson, At, Folder, open_workspace
from perdure.cli.output import emit, facts
from perdure.cli.progress import progress


def export(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    at: At = "head",
    merged: Annotated[bool, typer.Option("--merged", help="Write a whole model instead of an adapter.")] = False,
    rank: Annotated[int | None, typer.Option(min=1, help="Compress the adapter to this rank.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Write an entry's state as a plain PEFT adapter, or merged as a model."""
    from perdure.workflows.export import export as write

    ws = open_workspace(folder)
    with progress("exporting"):
        found = write(ws, target, at=at, merged=merged, rank=rank)
    return emit(found) if as_json else typer.echo(facts({**found, "files": ", ".join(found["files"])}))
