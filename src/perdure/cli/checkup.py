"""`perdure checkup`: what the model can do, compared with the base model, on one screen."""

import json
from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.names import entry_names
from perdure.cli.options import AsJson, At, Device, Folder, Force, RunsCode, open_workspace
from perdure.cli.output import emit, print_message, print_text, warn
from perdure.cli.progress import progress
from perdure.core.outputs import CHECKUP, write_output


def checkup(
    budget: Annotated[
        str,
        typer.Option(
            metavar="BUDGET",
            help="quick, standard or full; grow for each in turn until it is decided; or seconds for the guards, as 300s.",
        ),
    ] = "quick",
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Abilities, guards or harness:NAME to measure, and no task."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            autocompletion=entry_names,
            show_default="the reference of each guard",
            help="Compare guards with the model at this entry.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", envvar="PERDURE_DATA", help="Folder of the data files of public sets."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Let a judge compare answers with the reference's: http://HOST/v1#MODEL, or a command of JSON lines.",
        ),
    ] = None,
    embedding: Annotated[
        bool,
        typer.Option(
            "--embedding", help="Compare what answers mean with the reference's, by hidden states of the base."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 where the verdict is inconclusive, and where it is fail.")
    ] = False,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the checkup as JSON to a file.")] = None,
    run_code: RunsCode = "no",
    at: At = "head",
    force: Force = False,
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Measure tasks, abilities, facts and drift, compared with the base model. Scores that were measured before are looked up.

    Example: perdure checkup --budget 300s
    """
    from perdure.cli.checkup_screen import checkup_screen
    from perdure.workflows.checkup.checkup import CheckupRequest
    from perdure.workflows.checkup.checkup import checkup as carry_out

    words = tuple(word.strip() for word in (only or "").split(",") if word.strip())
    request = CheckupRequest(
        at=at,
        against=against,
        budget=_budget(budget),
        only=words,
        data=data,
        strict=strict,
        judge=judge,
        embedding=embedding,
    )
    ws = open_workspace(folder, device, run_code)
    with progress("looking up scores") as tick:
        result = carry_out(ws.session, request, tick, about=print_message)
    if save:
        text = json.dumps(result.to_json(), ensure_ascii=False) + "\n"
        write_output(save, text, CHECKUP, force=force, workspaces=[ws.ledger.root])
    if as_json:
        emit(result.to_json())
    else:
        print_text(checkup_screen(result, ws.ledger.aliases))
    for notice in result.warnings:
        warn(notice)
    if strict and result.gate.verdict != "pass":
        raise typer.Exit(3)


def _budget(text: str) -> str | float:
    """Return the seconds of a budget such as 300s or 5m; any other text as it is."""
    for unit, seconds in (("s", 1.0), ("m", 60.0)):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            return float(number) * seconds
    return text
