"""`perdure learn`: learn a task, and score the others."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from perdure.cli.learn_screen import conclude, show_preview, show_result
from perdure.cli.names import formats, recipes, scorers, task_names
from perdure.cli.options import AsJson, Device, Folder, Message, open_workspace
from perdure.cli.output import emit, warn
from perdure.cli.progress import progress
from perdure.core.plain_yaml import read_yaml


def learn(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", autocompletion=task_names, help="Name of the task; a known task is updated with more data."
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="Files, folders, data sets on the hub (hub:ORG/NAME), - for stdin, or a task file (YAML).",
        ),
    ],
    test: Annotated[Path | None, typer.Option(metavar="FILE", help="Test rows; by default a part of DATA.")] = None,
    kind: Annotated[
        Literal["task", "knowledge"],
        typer.Option(help="Train all rows, or edit the facts among them and train the rest."),
    ] = "task",
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME_OR_FILE",
            autocompletion=recipes,
            help="Recipe: a name of 'perdure recipe list', or a YAML file.",
        ),
    ] = "dual_replay",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A recipe setting, as learning_rate=1e-4.")
    ] = None,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="Move head without judging the older tasks.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Count an inconclusive gate as failed.")] = False,
    tolerance: Annotated[
        float | None, typer.Option(show_default="0.03", help="Largest drop of a guarded task, as a share.")
    ] = None,
    floor: Annotated[float | None, typer.Option(help="Least score of the new task, from 0 to 1.")] = None,
    lost_facts: Annotated[
        float | None, typer.Option(show_default="0", help="Largest share of the edited facts that may be lost.")
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Allow test rows that are also in a train part.")
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=formats,
            help="Format of the data, detected by default: messages, sharegpt, prompt_completion, alpaca, query_response, "
            "text_label, text_labels or text.",
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help=r"Prompt of text with labels, with columns in braces; \n is a line break.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAME=COLUMN,...", help="Roles of columns: prompt=question,completion=answer.")
    ] = None,
    system: Annotated[str | None, typer.Option(help=r"System prompt of the task; \n is a line break.")] = None,
    documents: Annotated[
        Literal["paragraph", "file"] | None,
        typer.Option(show_default="paragraph; file in a folder", help="What a row of a .txt file is."),
    ] = None,
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, show_default="all; 100,000 of the hub", help="Most rows of each file or split of DATA."),
    ] = None,
    test_rows: Annotated[
        int | None, typer.Option(min=1, show_default="1,000", help="Most test rows that are scored at each learn.")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=scorers,
            help="Scorer by name, or as YAML with its options: exact, choice, f1, rouge_l, set_f1, set_exact, tool_calls, "
            "number or regex.",
        ),
    ] = None,
    general: Annotated[Path | None, typer.Option(metavar="FILE", help="General instruction data to replay.")] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", autocompletion=task_names, help="Guard this task only; repeatable."),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="TASK=FILE", help="Rows of an older task that are not stored; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")] = False,
    message: Message = None,
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Learn TASK from DATA: train, score it and every older task, and move head if the gate passes.

    Exits with 3 when the gate fails: head stays, and the entry waits for 'perdure accept' or 'perdure discard'.
    With --kind knowledge, rows that are facts are edited after the others were trained, and 3 means that head did not move.

    Example: perdure learn broadband broadband.jsonl --set num_train_epochs=3
    """
    from perdure.cli.knowledge import learn_knowledge
    from perdure.ledger.records import Gate
    from perdure.workflows.inspect import views
    from perdure.workflows.learn.learn import learn as carry_out
    from perdure.workflows.learn.preview import preview

    limits = {"strict": strict, "tolerance": tolerance, "floor": floor, "lost_facts": lost_facts}
    rule: dict[str, Any] = {k: v for k, v in limits.items() if v is not None and v is not False}
    if no_gate and (rule or guard):
        name = next(iter(rule), "guard").replace("_", "-")
        raise typer.BadParameter(f"without a gate there is nothing for --{name} to decide")
    about = {"format": format, "template": template and template.replace("\\n", "\n"), "scorer": _yaml(scorer)}
    about |= {"general": general, "guard": guard or None, "columns": _columns(columns)}
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
    ws = open_workspace(folder, device)
    gate = options["gate"] = None if no_gate else Gate(**rule)
    if kind == "knowledge":
        return learn_knowledge(ws, task, data, options, gate=gate, dry_run=dry_run, as_json=as_json, message=message)
    planned = ws.plan(task, data, **options)
    if dry_run:
        with progress("loading the model") as tick:
            found = preview(ws.session, planned, tick)
        return emit(found.to_json()) if as_json else show_preview(found)
    for text in planned.notices:  # before hours of training
        warn(text)
    with progress("loading the model") as tick:
        result = carry_out(ws.session, planned, gate=gate, tick=tick, message=message)
    if as_json:
        emit(result.to_json())
    else:
        show_result(result, views.score_table(ws.ledger, ws.ledger.resolve(result.entry)))
    for text in result.warnings:
        if text not in planned.notices:
            warn(text)
    conclude(result)


def overrides(pairs: list[str]) -> dict[str, Any]:
    """Return KEY=VALUE pairs as a mapping, values read as YAML."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is no KEY=VALUE", param_hint="--set")
        if not value.strip():
            raise typer.BadParameter(
                f"{pair!r} has no value; write KEY=VALUE (methods.NAME=null takes a method out)", param_hint="--set"
            )
        if key in found:
            warn(f"--set {key} is given twice; the last one counts: {value}")
        found[key] = _yaml(value)
    return found


def _columns(text: str | None) -> dict[str, str] | None:
    """Return NAME=COLUMN pairs as a mapping; the comma between two stands before a name and an equals sign."""
    if text is None:
        return None
    pairs = [pair.partition("=") for pair in re.split(r",(?=\s*\w+=)", text)]
    found = {name.strip(): column.strip() for name, _, column in pairs}
    if len(found) < len(pairs) or not all(equals and name.strip() and column.strip() for name, equals, column in pairs):
        raise typer.BadParameter(f"{text!r} is not NAME=COLUMN,NAME=COLUMN with each name once", param_hint="--columns")
    return found


def files_by_task(pairs: list[str]) -> dict[str, list[Path]]:
    """Return TASK=FILE pairs as the files of each task."""
    found: dict[str, list[Path]] = {}
    for pair in pairs:
        task, equals, file = pair.partition("=")
        if not equals or not task or not file:
            raise typer.BadParameter(f"{pair!r} is no TASK=FILE", param_hint="--rows")
        found.setdefault(task, []).append(Path(file))
    return found


def _yaml(text: str | None) -> Any:
    """Return a value read as YAML."""
    import yaml

    try:
        return text if text is None else read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise typer.BadParameter(f"{text!r} is no YAML: {error}") from None
