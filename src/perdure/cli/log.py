"""`perdure log`: the entries, newest first."""

from perdure.cli.options import AsJson, Folder, open_ledger
from perdure.cli.output import clock, emit, short, table, tell


def log(folder: Folder = None, as_json: AsJson = False) -> None:
    """List the entries, newest first, those that were rolled back included."""
    from perdure.workflows.edit.records import about

    ledger = open_ledger(folder)
    lines = ledger.log()
    if as_json:
        return emit([one.to_json() for one in lines])
    line = {entry.id for entry in ledger.ancestors(ledger.resolve("head"))}
    rows = []
    for e in lines:
        refs = ", ".join(e.refs) or ("" if e.entry in line else "(not in head)")
        what = f"{e.kind} {about(ledger, e.entry, e.task) or ''}".rstrip()
        rows.append([short(e.entry), clock(e.time), what, short(e.parent), refs])
    tell(table(["entry", "time (UTC)", "what", "parent", "refs"], rows))
