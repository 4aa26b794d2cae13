"""`perdure report`: the whole story as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.options import AsJson, Folder, Force, open_workspace
from perdure.cli.output import emit, print_message


def report(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="HTML file to write.")],
    compare: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Workspace to compare with this one; repeatable.")
    ] = None,
    force: Force = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Write a self-contained HTML report: matrix, curves, gates, heartbeats, history.

    Example: perdure report -o report.html --compare ../naive
    """
    from perdure.core.outputs import REPORT, check_output
    from perdure.report import write_report
    from perdure.workflows.inspect.report_data import report_data

    ws, others = open_workspace(folder), {name: open_workspace(path) for name, path in _named(compare or []).items()}
    roots = [one.ledger.root for one in (ws, *others.values())]
    check_output(output, REPORT, force=force, workspaces=roots)
    contents = report_data(ws.ledger, {name: other.ledger for name, other in others.items()})
    write_report(
        contents,
        output,
        force=force,
        workspaces=roots,
    )
    if as_json:
        return emit({"path": str(output), "bytes": output.stat().st_size, "entries": len(contents.entries)})
    print_message(f"report written to {output}")


def _named(paths: list[Path]) -> dict[str, Path]:
    """Return the folders by the names of their columns: the last part of the path, or all of it where two end alike."""
    ends = [path.resolve().name for path in paths]
    return {str(path) if ends.count(end) > 1 else end: path for path, end in zip(paths, ends, strict=True)}
