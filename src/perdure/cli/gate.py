"""`perdure gate`: what a gate decided, and whether its evidence says so."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.options import AsJson, Folder, Force, open_ledger
from perdure.cli.output import emit, say, tell
from perdure.core.errors import BadInput


def gate(
    evidence: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge this evidence again; needs no model and no workspace.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the evidence to a file.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="REF", show_default="the candidate, else head", help="Whose gate.")
    ] = None,
    force: Force = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show what the gate decided and why. Exits with 3 where it failed."""
    from perdure.evaluate.evidence import check_evidence

    if evidence is not None:
        if save or at:
            raise typer.BadParameter("--evidence judges a file; --save and --at belong to a workspace")
        verdict = check_evidence(evidence)
        _show(verdict, as_json)
        if verdict["differences"]:
            raise BadInput(
                f"{evidence} states another verdict than its scores give; take the file as the gate wrote it"
            )
    else:
        from perdure.workflows.inspect import views

        ledger = open_ledger(folder)
        verdict = views.gate(ledger, at)["verdict"]
        if save:
            views.save_evidence(ledger, save, at, force=force)
            say(f"evidence written to {save}")
        _show(verdict, as_json)
    if verdict["verdict"] == "fail":
        raise typer.Exit(3)


def _show(verdict: dict[str, Any], as_json: bool) -> None:
    from perdure.evaluate.gate import screen

    if as_json:
        emit(verdict)
    elif verdict["verdict"] == "off":
        tell(f"gate: OFF, {verdict['reason']}")
    else:
        tell(screen(verdict).rstrip())
