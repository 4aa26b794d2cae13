"""Options that several commands share, and the workspace they name."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from perdure.ledger import Ledger
    from perdure.workflows.workspace import Workspace

NAMES = ("-w", "--workspace")


def _remember(ctx: typer.Context, value: Path | None) -> Path | None:
    """Keep what was given before a command's name, where the command finds it."""
    if value is not None:
        ctx.obj = value
    return value


def _chosen(ctx: typer.Context, value: Path | None) -> Path:
    """Return what was given after the command's name, else before it, else in the environment, else here."""
    return value or ctx.obj or Path(os.environ.get("PERDURE_WORKSPACE") or ".")


Above = Annotated[
    Path | None,
    typer.Option(*NAMES, callback=_remember, metavar="DIR", help="Workspace; else PERDURE_WORKSPACE, else here."),
]
Folder = Annotated[
    Path | None, typer.Option(*NAMES, callback=_chosen, metavar="DIR", show_default=False, help="Workspace to work in.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there, whatever it is.")]
At = Annotated[str, typer.Option("--at", metavar="REF", help="Ref, entry id or its beginning, or REF~N.")]


def open_ledger(folder: Path | None) -> "Ledger":
    """Open the ledger of a workspace alone, without torch."""
    from perdure.ledger import Ledger

    return Ledger.open(folder or Path())


def open_workspace(folder: Path | None) -> "Workspace":
    """Open a workspace."""
    from perdure.workflows.workspace import Workspace

    return Workspace.open(folder or Path())
