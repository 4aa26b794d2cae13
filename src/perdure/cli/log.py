"""`perdure log`: the entries, newest first."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.options import AsJson, Folder, open_ledger
from perdure.cli.output import clip, clock, emit, print_text, short, table

if TYPE_CHECKING:
    from perdure.ledger.records import LogEntry

WIDE = 60  # characters of a message


def log(
    every: Annotated[
        bool, typer.Option("--all", help="List the candidate, and candidates that were discarded, too.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """List the entries, newest first, those that were rolled back included.

    The score is that of the task that was learned; of a merge, an edit or a revert, the mean over its tasks.

    Example: perdure log --all
    """
    from perdure.workflows.edit.records import about
    from perdure.workflows.inspect.log import log as read

    ledger = open_ledger(folder)
    lines = read(ledger, every=every)
    if as_json:
        return emit([one.to_json() for one in lines])
    line = {entry.id for entry in ledger.ancestors(ledger.resolve("head"))}
    columns: dict[str, list[str]] = {
        "entry": [short(e.entry) for e in lines],
        "time (UTC)": [clock(e.time) for e in lines],
        "what": [f"{e.kind} {about(ledger, e.entry, e.task) or ''}".rstrip() for e in lines],
        "gate": [e.verdict or "" for e in lines],
        "score": ["" if e.score is None else f"{e.score:.1%}" for e in lines],
        "recipe": [e.recipe or "" for e in lines],
        "parent": [short(e.parent) for e in lines],
        "refs": [_refs(e, line) for e in lines],
        "author": [_name(e.author or "") for e in lines],
        "message": [clip(e.message or "", WIDE) for e in lines],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    heads = list(shown)
    right = [heads.index(name) for name in ("score",) if name in shown]
    print_text(table(heads, list(zip(*shown.values(), strict=True)), right=right))


def _name(author: str) -> str:
    """Return an author without the address: "Ann Lee" of "Ann Lee <ann@example.org>"."""
    return author.partition("<")[0].strip() or author


def _refs(entry: "LogEntry", line: set[str]) -> str:
    if entry.discarded:
        return f"(discarded {clock(entry.discarded)})"
    return ", ".join(entry.refs) or ("" if entry.entry in line else "(not in head)")
