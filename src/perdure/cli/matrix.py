"""`perdure matrix`: stage x task, and what it amounts to."""

from typing import Annotated

import typer

from perdure.cli.options import AsJson, At, Folder, open_ledger
from perdure.cli.output import counted, emit, knows_nothing, print_message, print_text

TASKS, STAGES = 10, 12  # that the table of a larger matrix shows
WIDE, HIGH = 12, 20  # tasks and stages of which a table shows all


def matrix(
    at: At = "head",
    every: Annotated[
        bool, typer.Option("--all", help="Show every task and every stage, also where they are many.")
    ] = False,
    routed: Annotated[
        bool,
        typer.Option(
            "--routed/--known",
            help="Scores of requests that do not name their task (a router sends them), or of those that do.",
        ),
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Print what each stage could do on each task, with accuracy, transfer and forgetting.

    Of more than 12 tasks the newest and those that lost most are shown, of more than 20 stages the newest.

    With --routed no request names its task. Where tasks were learned with a router (recipe isolated), each learn, revert, merge
    and edit measures these scores, and 'perdure eval --routed' does so for any other state.

    Example: perdure matrix --at head~1
    """
    from perdure.evaluate.matrix import Part, plain_text
    from perdure.workflows.inspect.matrix import matrix as read

    ledger = open_ledger(folder)
    table = read(ledger, at, parts=not as_json, routed=routed)
    if as_json:
        names = {task: alias for task, alias in ledger.aliases.items() if task in table.tasks}
        routing = {"routing": None} if routed else {}  # a state that was not scored has the key too
        return emit({**routing, **table.to_json(), **({"aliases": names} if names else {})})
    table = table.renamed(ledger.aliases)
    if not table.tasks:
        return print_message(knows_nothing(at))
    most_tasks = TASKS if len(table.tasks) > WIDE and not every else None
    most_stages = STAGES if len(table.stages) > HIGH and not every else None
    part = Part.of(table, most_tasks, most_stages)
    print_text(plain_text(table, part).rstrip())
    tasks, stages = part.hides(table)
    hidden = [counted(n, f"more {word}") for n, word in ((tasks, "task"), (stages, "stage")) if n]
    if hidden:
        print_message(f"{' and '.join(hidden)}; --all shows all, the metrics are of all tasks")
