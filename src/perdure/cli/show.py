"""`perdure show`: one entry."""

from typing import Annotated

import typer

from perdure.cli.edits import fact_pairs
from perdure.cli.learn_screen import score_lines
from perdure.cli.options import AsJson, Folder, open_ledger
from perdure.cli.output import clock, counted, emit, facts, short, tell, warn


def show(
    ref: Annotated[
        str, typer.Argument(metavar="ENTRY", help="Ref, entry id or its beginning, or 'candidate'.")
    ] = "head",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show an entry: its command, its data and its results."""
    from perdure.workflows.inspect import views

    found = views.show(open_ledger(folder), ref)
    if as_json:
        return emit(found)
    record, recipe = found["record"] or {}, found["recipe"] or {}
    pairs = {
        "entry": found["entry"],
        "parent": found["parent"],
        "what": f"{found['kind']} {found['about'] or ''}".rstrip(),
        "time": f"{clock(found['time'])} UTC" if found["time"] else None,
        "refs": ", ".join(found["refs"]),
        "recipe": recipe and ", ".join([recipe["name"], *(f"with {name}" for name in recipe["methods"])]),
        "seed": found["seed"],
        "state": short(found["state"]),
        "slots": ", ".join(f"{name} {short(s['object'])} ({s['bytes']:,} bytes)" for name, s in found["slots"].items()),
        "memory": counted(found["memory"]["rows"], "row"),
        "updates": record.get("updates"),
        "tokens": f"{record['tokens']:,}" if record else None,
        "seconds": f"{record['train_seconds']:.1f} training, {record['eval_seconds']:.1f} scoring" if record else None,
        **fact_pairs(found),
        "gate": found["gate"] and f"{found['gate']['verdict'].upper()}, {found['gate']['reason']}",
    }
    tell(facts(pairs))
    if found["scores"]:
        tell("\n" + score_lines(found["scores"], found["task"]))
    for text in record.get("warnings", []):
        warn(text)
