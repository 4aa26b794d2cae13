"""`perdure merge`: one adapter of bounded rank in the place of many."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from perdure.cli.learn_options import NoGate, RowFiles, Strict, Tolerance, files_by_task
from perdure.cli.learn_screen import change_lines, gate_screen, reason_of, routed_line
from perdure.cli.names import task_names
from perdure.cli.options import (
    AsJson,
    Device,
    Folder,
    Guards,
    Message,
    NoGuards,
    RunsCode,
    guard_mode,
    open_workspace,
)
from perdure.cli.output import counted, emit, print_message, print_text, short, warn
from perdure.cli.progress import progress

if TYPE_CHECKING:
    from perdure.ledger import Ledger
    from perdure.workflows.merge.outcome import MergeResult


def merge(
    rank: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="Most rank of the merged adapter; not with --drop alone."),
    ] = None,
    how: Annotated[
        Literal["svd", "average", "ties", "dare", "slerp", "knots"],
        typer.Option(help="svd adds the adapters, average takes their mean; the others are methods of their papers."),
    ] = "svd",
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            autocompletion=task_names,
            show_default="all",
            help="Merge the adapter of this task; repeatable.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=NUMBER", show_default="1", help="Weight of a task; repeatable."),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            show_default="0.2; dare 0.5",
            help="Share of the entries that ties, knots and dare keep, above 0 and at most 1.",
        ),
    ] = None,
    distill_epochs: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Train the merged adapter on stored rows towards the answers of the adapters before.",
        ),
    ] = 0,
    rows: RowFiles = None,
    drop: Annotated[
        bool,
        typer.Option(
            "--drop",
            help="Drop the merged tasks' own adapters: requests go through the merged one. Without --rank: those that an earlier "
            "merge has.",
        ),
    ] = False,
    no_gate: NoGate = False,
    strict: Strict = False,
    tolerance: Tolerance = None,
    guards: Guards = None,
    no_guards: NoGuards = False,
    message: Message = None,
    folder: Folder = None,
    device: Device = None,
    run_code: RunsCode = "no",
    as_json: AsJson = False,
) -> None:
    """Merge the adapters of tasks into one of bounded rank, which all tasks share.

    Adapters of a sum are replaced by it. Adapters that tasks have of their own stay for requests that name the task, unless
    --drop is given; --drop alone drops them later. Exits with 3 when a task lost more than the gate tolerates: head stays, and
    the entry waits for 'perdure accept' or 'perdure discard'.

    Example: perdure merge --rank 16
    """
    from perdure.ledger.records import Gate

    mode = guard_mode(guards, no_guards)
    rule: dict[str, Any] = {"strict": strict or None, "tolerance": tolerance}
    rule = {name: value for name, value in rule.items() if value is not None}
    if no_gate and rule:
        raise typer.BadParameter(f"without a gate there is nothing for --{next(iter(rule))} to decide")
    if no_gate and mode not in (None, "none"):
        raise typer.BadParameter(f"without a gate no guard is scored, so that --guards {mode} has nothing to do")
    if rank is None and not drop:
        raise typer.BadParameter("give a rank, or --drop alone to drop adapters that are merged", param_hint="--rank")
    ws = open_workspace(folder, device, run_code)
    with progress("loading the model") as tick:
        result = ws.merge(
            rank,
            how=how,
            tasks=tasks or (),
            weights=_weights(weights or []),
            density=density,
            distill_epochs=distill_epochs,
            drop=drop,
            rows=files_by_task(rows or []),
            gate=None if no_gate else Gate(**rule),
            tick=tick,
            message=message,
            guards=mode,
        )
    if as_json:
        emit(result.to_json())
    else:
        _show(result, ws.ledger)
    for text in result.warnings:
        warn(text)
    _conclude(result, ws.ledger)


def _weights(pairs: list[str]) -> dict[str, float]:
    """Return TASK=NUMBER pairs as a mapping."""
    found: dict[str, float] = {}
    for pair in pairs:
        task, equals, number = pair.rpartition("=")
        try:
            found[task] = float(number)
        except ValueError:
            equals = ""
        if not equals or not task:
            raise typer.BadParameter(f"{pair!r} is no TASK=NUMBER", param_hint="--weights")
    return found


def _show(result: "MergeResult", ledger: "Ledger") -> None:
    """Print what was merged or dropped, each task before and after, and the gate's screen."""
    from perdure.ledger.records.merge import DROP

    names = ", ".join(map(ledger.shown_name, result.tasks))
    entry, seconds = f"entry {short(result.entry)}", f"{result.seconds:.1f} s\n"
    trained = f", trained on {counted(result.rows, 'row')}" if result.rows else ""
    if result.how == DROP:
        print_text(
            f"dropped {names}: {counted(len(result.tasks), 'own adapter')}, in the place of which the shared one of rank "
            f"{result.rank} answers; {entry}, {seconds}"
        )
    else:
        print_text(
            f"merged {names} by {result.how} into rank {result.rank}{trained}: {entry}, relative error of the truncation "
            f"{result.error:.2g}, {seconds}"
        )
    print_text(change_lines(*map(ledger.by_shown_name, (result.before, result.scores))) + "\n")
    if result.kept:
        kept = ", ".join(map(ledger.shown_name, result.kept))
        print_text(
            f"requests that name {kept} go through the adapters of their own, as before ('perdure merge --drop' drops these)\n"
        )
    if result.routed and result.routing:
        print_text(routed_line(result.routed, result.routing) + "\n")
    print_text(gate_screen(result.gate, ledger.aliases))


def _conclude(result: "MergeResult", ledger: "Ledger") -> None:
    """Exit with 3 if the gate failed."""
    if result.gate.verdict == "fail":
        print_message(f"GATE FAILED: {reason_of(result.gate, ledger.aliases)}.", fg="red", bold=True)
        print_message(f"Head stays; entry {short(result.entry)} waits for 'perdure accept' or 'perdure discard'.")
        raise typer.Exit(3)
