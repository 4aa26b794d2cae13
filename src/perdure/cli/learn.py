"""`perdure learn`: learn a task, and score the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from perdure.cli.learn_options import (
    AllowLeaks,
    Columns,
    Correct,
    DataFiles,
    Documents,
    Drift,
    DryRun,
    Floor,
    Format,
    General,
    Guard,
    Kind,
    LostFacts,
    MaxRows,
    MeanDrop,
    NoGate,
    RecipeName,
    Repair,
    RowFiles,
    Scorer,
    Settings,
    Strict,
    System,
    Task,
    Template,
    Test,
    TestRows,
    Tolerance,
    WorstDrop,
    columns_of,
    files_by_task,
    overrides,
    yaml_value,
)
from perdure.cli.learn_screen import conclude, show_preview, show_result
from perdure.cli.options import (
    AsJson,
    Device,
    Folder,
    Guards,
    Message,
    NoGuards,
    RunsCode,
    TrustFile,
    guard_mode,
    open_workspace,
)
from perdure.cli.output import emit, print_message, warn
from perdure.cli.progress import late_progress, progress
from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.errors import PerdureError

if TYPE_CHECKING:
    from perdure.workflows.learn.record import LearnResult
    from perdure.workflows.learn.repair import By
    from perdure.workspace.facade import Workspace


def learn(
    task: Task = None,
    data: DataFiles = None,
    test: Test = None,
    kind: Kind = "task",
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    no_gate: NoGate = False,
    repair: Repair = None,
    strict: Strict = False,
    tolerance: Tolerance = None,
    floor: Floor = None,
    lost_facts: LostFacts = None,
    mean_drop: MeanDrop = None,
    worst_drop: WorstDrop = None,
    drift: Drift = None,
    correct: Correct = None,
    allow_leaks: AllowLeaks = False,
    format: Format = None,
    template: Template = None,
    columns: Columns = None,
    system: System = None,
    documents: Documents = None,
    max_rows: MaxRows = None,
    test_rows: TestRows = None,
    scorer: Scorer = None,
    trust_file: TrustFile = None,
    run_code: RunsCode = "no",
    general: General = None,
    guard: Guard = None,
    guards: Guards = None,
    no_guards: NoGuards = False,
    rows: RowFiles = None,
    dry_run: DryRun = False,
    message: Message = None,
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Learn TASK from DATA: train, score it and every older task, and move head if the gate passes.

    Exits with 3 when the gate fails: head stays, and the entry waits for 'perdure accept', 'perdure discard' or
    'perdure learn --repair', which scales its update down without training again.
    With --kind knowledge, rows that are facts are edited after the others were trained, and 3 means that head did not move.

    Example: perdure learn broadband broadband.jsonl --set num_train_epochs=3
    """
    if task is None or not data:
        return _repair_candidate(task, repair, message, folder, device, run_code, as_json)
    from perdure.cli.knowledge import learn_knowledge
    from perdure.ledger.records import Gate
    from perdure.workflows.guards.judge import mode_for
    from perdure.workflows.learn.learn import learn as carry_out
    from perdure.workflows.learn.preview import preview

    mode = guard_mode(guards, no_guards)
    limits: dict[str, Any] = {"strict": strict, "tolerance": tolerance, "floor": floor, "lost_facts": lost_facts}
    limits |= {"mean_drop": mean_drop, "worst_drop": worst_drop, "drift": drift, "correct": correct}
    rule: dict[str, Any] = {k: v for k, v in limits.items() if v is not None and v is not False}
    if no_gate and (rule or guard):
        name = next(iter(rule), "guard").replace("_", "-")
        raise typer.BadParameter(f"without a gate there is nothing for --{name} to decide")
    if no_gate and mode not in (None, "none"):
        raise typer.BadParameter(f"without a gate no guard is scored, so that --guards {mode} has nothing to do")
    if repair and (no_gate or kind == "knowledge"):
        other = "--no-gate" if no_gate else "--kind knowledge"
        raise typer.BadParameter(f"--repair scales the update of a task that its gate refused; leave out {other}")
    about = {"format": format, "template": template and template.replace("\\n", "\n"), "scorer": yaml_value(scorer)}
    about |= {"general": general, "guard": guard or None, "columns": columns_of(columns)}
    about |= {
        "documents": documents,
        "max_rows": max_rows,
        "test_rows": test_rows,
        "system": system and system.replace("\\n", "\n"),
    }
    options: dict[str, Any] = {
        "test": test,
        "recipe": recipe,
        "overrides": overrides(settings or []),
        "settings": {key: value for key, value in about.items() if value is not None},
        "allow_leaks": allow_leaks,
        **({"rows": files_by_task(rows)} if rows else {}),
    }
    ws = open_workspace(folder, device, run_code)
    for file in trust_file or ():
        ws.trust(file)
    gate = options["gate"] = None if no_gate else Gate(**rule)
    if kind == "knowledge":
        more: dict[str, Any] = {"dry_run": dry_run, "as_json": as_json, "message": message, "guards": mode}
        return learn_knowledge(ws, task, data, options, gate=gate, **more)
    try:
        with late_progress("loading the model") as tick:
            planned = ws.plan(task, data, **options, tick=tick)
    except PerdureError:
        if dry_run:
            print_message("dry run: stopped by what follows; nothing was changed")
        raise
    if dry_run:
        with progress("loading the model") as tick:
            found = preview(ws.session, planned, tick, mode_for(ws.ledger, mode, gate))
        return emit(found.to_json()) if as_json else show_preview(found, ws.ledger)
    for text in planned.notices:  # before hours of training
        warn(text)
    with progress("loading the model") as tick:
        result = carry_out(ws.session, planned, gate=gate, tick=tick, message=message, guards=mode)
        if repair and result.gate.verdict == "fail":
            result = ws.repair(cast("By", repair), tick=tick, message=message)
    _show(ws, result, as_json=as_json, shown=planned.notices)


def _repair_candidate(
    task: str | None,
    repair: str | None,
    message: str | None,
    folder: Path | None,
    device: str | None,
    run_code: str,
    as_json: bool,
) -> None:
    """Scale the update of the waiting candidate down; without --repair TASK or DATA is missing."""
    if task is not None or not repair:
        missing = "TASK and DATA" if task is None else "DATA"
        raise typer.BadParameter(f"give {missing}; only --repair of the candidate that waits goes without")
    ws = open_workspace(folder, device, run_code)
    with progress("loading the model") as tick:
        result = ws.repair(cast("By", repair), tick=tick, message=message)
    _show(ws, result, as_json=as_json)


def _show(ws: "Workspace", result: "LearnResult", *, as_json: bool, shown: Sequence[str] = ()) -> None:
    """Print a result and its warnings, but for those that were shown; exit with 3 where the gate failed."""
    if as_json:
        emit(result.to_json())
    else:
        show_result(result, ws.ledger)
    for text in result.warnings:
        if text not in shown:
            warn(text)
    conclude(result, ws.ledger.aliases)
