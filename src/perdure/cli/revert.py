"""`perdure revert`: take facts, or a task, out again."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.learn_screen import change_lines, routed_line
from perdure.cli.names import names_to_revert
from perdure.cli.options import (
    AsJson,
    Device,
    Folder,
    NoGuards,
    NoScore,
    Quick,
    RunsCode,
    open_workspace,
    rows_to_score,
)
from perdure.cli.output import counted, emit, print_text, short, warn
from perdure.cli.progress import progress
from perdure.core.records import in_stored_order
from perdure.core.slots import sum_slot

if TYPE_CHECKING:
    from perdure.ledger import Ledger
    from perdure.workflows.learn.revert_task import TaskRevertResult


def revert(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TASK_OR_FACT",
            autocompletion=names_to_revert,
            help="A task, id of a fact, or of an edit: all its facts.",
        ),
    ],
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Solve the other facts again, as if this one had never been edited.")
    ] = False,
    quick: Quick = False,
    no_score: NoScore = False,
    no_guards: NoGuards = False,
    folder: Folder = None,
    device: Device = None,
    run_code: RunsCode = "no",
    as_json: AsJson = False,
) -> None:
    """Take a fact, all facts of an edit, or a task with an adapter of its own out of head in a new entry.

    The tasks are scored afterwards; where the weights are those of an earlier entry, its scores are looked up. A task that was
    learned in weights which other tasks share cannot be taken out alone: 'perdure rollback' goes back to before it.

    Example: perdure revert broadband
    """
    from perdure.workflows.edit.results import RevertResult
    from perdure.workflows.rescore import Rescore
    from perdure.workflows.revert import revert as carry_out

    rescoring = Rescore(rows_to_score(quick, no_score), guards="none" if no_guards else None)
    ws = open_workspace(folder, device, run_code)
    with progress("loading the model") as tick:
        result = carry_out(ws.session, what, resolve=resolve, tick=tick, rescoring=rescoring)
    if not isinstance(result, RevertResult):
        return emit(result.to_json()) if as_json else _show_task(result, ws.ledger)
    if as_json:  # what was recorded before is printed in the order in which it is stored
        return emit({key: in_stored_order(v) if result.already else v for key, v in result.to_json().items()})
    if result.already:
        named = ", ".join(map(short, result.already))
        return print_text(f"taken out before, in entry {short(result.entry)}: {named}; nothing is changed")
    print_text(f"reverted {counted(len(result.reverted), 'fact')}: entry {short(result.entry)}")
    for gone in result.reverted:
        still = "is STILL said" if gone.said else "is no longer said"
        print_text(f"  {short(gone.fact)} {gone.subject}: {gone.target!r} {still}")
    still_said = sum(line.efficacy for line in result.facts)
    left = f"{counted(len(result.facts), 'fact')} still in force, {still_said} said"
    print_text(left if result.facts else "no fact is in force any more")
    if result.scores:
        print_text("\n" + change_lines(*map(ws.ledger.by_shown_name, (result.before, result.scores))))
    if result.lost:
        warn(f"no longer said: {', '.join(map(short, result.lost))}; 'perdure edits show FACT' has the details")
    for warning in result.warnings:
        warn(warning)


def _show_task(result: "TaskRevertResult", ledger: "Ledger") -> None:
    """Print that a task was taken out, what of it is left, and the scores of the others before and after."""
    from perdure.workflows.learn.influence import influence

    in_sum = sum_slot(result.task) in result.removed and any(
        name.startswith("sum:") for name in ledger.slots(ledger.entry(result.entry))
    )
    task = ledger.shown_name(result.task)
    if result.already:
        return print_text(f"task {task} was taken out before, in entry {short(result.entry)}; nothing is changed")
    print_text(f"reverted task {task}: entry {short(result.entry)}")
    print_text(f"  removed {', '.join(result.removed)}")
    if not influence(ledger, ledger.entry(result.entry), result.task).others:
        beside = ", though adapters of the sum that are newer were trained beside it" if in_sum else ""
        print_text(f"  no weights of head were trained on its rows any more{beside}")
    print_text(
        f"  the text of its rows is stored still, for earlier entries; 'perdure memory delete --task {task}' erases it"
    )
    if result.rows:
        print_text(f"  {counted(result.rows, 'row')} taken out of memory")
    for name, score in result.scores.items():
        before = result.before.get(name)
        changed = "unchanged" if before and score.score == before.score else "not scored before"
        if before and score.score != before.score:
            changed = f"{before.score:.1%} before"
        print_text(f"  {ledger.shown_name(name)}: {score.score:.1%}, {changed}")
    if result.routed and result.routing:
        print_text(f"  {routed_line(result.routed, result.routing)}")
    for warning in result.warnings:
        warn(warning)
