"""`perdure revert`: take facts out again."""

from typing import Annotated

import typer

from perdure.cli.options import AsJson, Folder, open_workspace
from perdure.cli.output import counted, emit, short, tell, warn
from perdure.cli.progress import progress


def revert(
    what: Annotated[str, typer.Argument(metavar="ENTRY_OR_FACT", help="Id of a fact, or of an edit: all its facts.")],
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Solve the others again, as if the fact had never been made.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Take a fact, or all facts of an edit, out of head in a new entry; the others are verified again.

    What was learned cannot be taken out alone: 'perdure rollback' goes back to before it.
    """
    from perdure.workflows.edit.revert import revert as carry_out

    ws = open_workspace(folder)
    with progress("loading the model") as tick:
        result = carry_out(ws.session, what, resolve=resolve, tick=tick)
    if as_json:
        return emit(result)
    if result["already"]:
        named = ", ".join(map(short, result["already"]))
        return tell(f"taken out before, in entry {short(result['entry'])}: {named}; nothing is changed")
    tell(f"reverted {counted(len(result['reverted']), 'fact')}: entry {short(result['entry'])}")
    for gone in result["reverted"]:
        still = "is STILL said" if gone["said"] else "is no longer said"
        tell(f"  {short(gone['fact'])} {gone['subject']}: {gone['target']!r} {still}")
    held = sum(line["efficacy"] for line in result["facts"])
    left = f"{counted(len(result['facts']), 'fact')} still in force, {held} said"
    tell(left if result["facts"] else "no fact is in force any more")
    if result["lost"]:
        warn(f"no longer said: {', '.join(map(short, result['lost']))}; 'perdure edits show' tells more")
