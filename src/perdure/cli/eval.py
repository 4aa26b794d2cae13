"""`perdure eval`: scores of tasks at an entry."""

from typing import Annotated

import typer

from perdure.cli.names import task_names
from perdure.cli.options import AsJson, At, Device, Folder, RunsCode, TrustFile, open_workspace
from perdure.cli.output import emit, interval, knows_nothing, percent, print_message, print_text, table, warn
from perdure.cli.progress import progress


def evaluate(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK", autocompletion=task_names, help="Tasks; all known ones by default."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Score every test row of a task that has more than its test_rows.")
    ] = False,
    routed: Annotated[
        bool,
        typer.Option(
            "--routed/--known",
            help="Score requests that do not name their task (a router sends them), or those that do.",
        ),
    ] = False,
    trust_file: TrustFile = None,
    run_code: RunsCode = "no",
    at: At = "head",
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Score tasks at an entry. Scores that were measured before are read from the ledger.

    Example: perdure eval broadband --at head~1
    """
    from perdure.workflows.inspect.evaluate import evaluate as carry_out

    ws = open_workspace(folder, device, run_code)
    for file in trust_file or ():
        ws.trust(file)
    session = ws.session
    with progress("looking up scores") as tick:
        evaluation = carry_out(session, tasks or (), at, tick, every=every, routed=routed)
    if as_json:
        record = evaluation.to_json()
        return emit({key: value for key, value in record.items() if key != "entry"})
    scores = evaluation.tasks
    if not scores:
        return print_message(knows_nothing(at))
    shown = ws.ledger.by_shown_name(scores)
    rows = [[name, percent(s), interval(s), s.n, s.scorer] for name, s in shown.items()]
    print_text(table(["task", "score", "95% interval", "n", "scorer"], rows, right=(1, 2, 3)))
    if evaluation.routing:
        print_text(f"routing: {evaluation.routing.renamed(ws.ledger.aliases).line}")
    for notice in evaluation.notices:
        warn(notice)
