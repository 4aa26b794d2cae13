"""`perdure gate`: what a gate decided, and whether its evidence confirms it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.learn_screen import gate_screen
from perdure.cli.names import entry_names
from perdure.cli.options import AsJson, Folder, Force, open_ledger
from perdure.cli.output import emit, print_message, print_text
from perdure.core.errors import BadInput

if TYPE_CHECKING:
    from perdure.ledger.records import GateOff, Verdict


def gate(
    evidence: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge this evidence again, without model and workspace.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the evidence to a file.")] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            autocompletion=entry_names,
            show_default="the candidate, else head",
            help="Entry of the gate.",
        ),
    ] = None,
    force: Force = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show what the gate decided on a learn or a merge, or said of an edit or a revert. Exits with 3 where it failed.

    Example: perdure gate --save evidence.json
    """
    from perdure.evaluate.evidence import check_evidence
    from perdure.evaluate.gate import screen

    if evidence is not None:
        if save or at:
            raise typer.BadParameter("--evidence judges a file; --save and --at belong to a workspace")
        checked = check_evidence(evidence)
        verdict: Verdict | GateOff = checked.verdict
        if as_json:
            emit(checked.to_json())
        else:
            print_text(screen(checked.verdict, checked.differences).rstrip())
        if checked.differences:
            raise BadInput(
                f"{evidence} states another verdict than its scores give; take the file as the gate wrote it"
            )
    else:
        from perdure.workflows.inspect import views

        ledger = open_ledger(folder)
        found = views.gate(ledger, at)
        verdict = found.verdict
        if save:
            views.save_evidence(ledger, save, at, force=force)
            print_message(f"evidence written to {save}")
        if as_json:
            emit(found.to_json())
        else:
            print_text(gate_screen(verdict, ledger.aliases))
            if found.kind not in ("learn", "merge"):
                print_message(
                    f"the gate of an entry of kind {found.kind} warns; 'edit --strict' lets it refuse the edit"
                )
    if verdict.verdict == "fail":
        raise typer.Exit(3)
