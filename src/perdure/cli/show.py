"""`perdure show`: one entry."""

from typing import Annotated

import typer

from perdure.cli.edits import fact_pairs
from perdure.cli.learn_screen import score_lines
from perdure.cli.options import AsJson, Folder, open_ledger
from perdure.cli.output import clock, counted, emit, facts, print_text, short, warn


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
        return emit(found.to_json())
    entry, learned, recipe = found.entry, found.learned, found.entry.recipe
    pairs = {
        "entry": entry.id,
        "parent": entry.parent,
        "what": f"{entry.kind} {found.about or ''}".rstrip(),
        "time": f"{clock(found.time)} UTC" if found.time else None,
        "author": found.signature.author,
        "message": found.signature.message,
        "refs": ", ".join(found.refs),
        "recipe": recipe and ", ".join([recipe["name"], *(f"with {name}" for name in recipe["methods"])]),
        "seed": entry.seed,
        "state": short(found.state),
        "slots": ", ".join(f"{name} {short(s.object)} ({s.bytes:,} bytes)" for name, s in found.slots.items()),
        "memory": counted(found.memory.rows, "row"),
        "updates": learned and learned.updates,
        "tokens": f"{learned.tokens:,}" if learned else None,
        "seconds": f"{learned.train_seconds:.1f} training, {learned.eval_seconds:.1f} scoring" if learned else None,
        **fact_pairs(found),
        "gate": learned and f"{learned.gate.verdict.upper()}, {learned.gate.reason}",
    }
    print_text(facts(pairs))
    if found.scores:
        print_text("\n" + score_lines(found.scores, entry.task))
    for text in learned.warnings if learned else ():
        warn(text)
