"""The options of `perdure learn`: what each is, and how its text is read."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from perdure.cli.names import formats, recipes, scorers, task_names
from perdure.cli.options import REPAIR
from perdure.cli.output import warn
from perdure.core.plain_yaml import read_yaml


def _how_to_repair(value: str | None) -> str | None:
    if value not in (None, "scale", "intruders"):
        raise typer.BadParameter(f"{value!r} is no way to repair; write {REPAIR}, or {REPAIR}=intruders")
    return value


Task = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK", autocompletion=task_names, help="Name of the task; a known task is updated with more data."
    ),
]
DataFiles = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="DATA...",
        help="Files, folders, data sets on the hub (hub:ORG/NAME), - for stdin, or a task file (YAML).",
    ),
]
Test = Annotated[Path | None, typer.Option(metavar="FILE", help="Test rows; by default a part of DATA.")]
Kind = Annotated[
    Literal["task", "knowledge"],
    typer.Option(help="Train all rows, or edit the facts among them and train the rest."),
]
RecipeName = Annotated[
    str,
    typer.Option(
        metavar="NAME_OR_FILE",
        autocompletion=recipes,
        help="Recipe: a name of 'perdure recipe list', or a YAML file.",
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A recipe setting, as learning_rate=1e-4.")
]
NoGate = Annotated[bool, typer.Option("--no-gate", help="Move head without judging the older tasks.")]
Repair = Annotated[
    str | None,
    typer.Option(
        REPAIR,
        metavar="[=intruders]",
        callback=_how_to_repair,
        help="Where the gate fails, scale the update down until it passes; without TASK, that of the candidate. '=intruders' "
        "scales its intruder directions alone.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Count an inconclusive gate as failed.")]
Tolerance = Annotated[
    float | None, typer.Option(show_default="0.03", help="Largest drop of a guarded task, as a share.")
]
Floor = Annotated[float | None, typer.Option(help="Least score of the new task, from 0 to 1.")]
LostFacts = Annotated[
    float | None, typer.Option(show_default="0", help="Largest share of the edited facts that may be lost.")
]
MeanDrop = Annotated[
    float | None, typer.Option(show_default="0.03", help="Largest mean drop over the guards that passes, as a share.")
]
WorstDrop = Annotated[
    float | None, typer.Option(show_default="0.1", help="Largest drop of a single guard that passes, as a share.")
]
Drift = Annotated[
    float | None, typer.Option(show_default="0.1", help="Largest drift from the reference that passes, from 0 to 1.")
]
Correct = Annotated[
    Literal["holm", "none"] | None,
    typer.Option(show_default="holm", help="How fail is corrected for the number of tasks, and of guards."),
]
AllowLeaks = Annotated[bool, typer.Option("--allow-leaks", help="Allow test rows that are also in a train part.")]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=formats,
        help="Format of the data, detected by default: messages, sharegpt, prompt_completion, aliases, alpaca, query_response, "
        "choices, contexts, checks, text_label, text_labels, text or programs.",
    ),
]
Template = Annotated[
    str | None, typer.Option(help=r"Prompt of text with labels, with columns in braces; \n is a line break.")
]
Columns = Annotated[
    str | None, typer.Option(metavar="NAME=COLUMN,...", help="Roles of columns: prompt=question,completion=answer.")
]
System = Annotated[str | None, typer.Option(help=r"System prompt of the task; \n is a line break.")]
Documents = Annotated[
    Literal["paragraph", "file"] | None,
    typer.Option(show_default="paragraph; file in a folder", help="What a row of a .txt file is."),
]
MaxRows = Annotated[
    int | None,
    typer.Option(min=1, show_default="all; 100,000 of the hub", help="Most rows of each file or split of DATA."),
]
TestRows = Annotated[
    int | None, typer.Option(min=1, show_default="1,000", help="Most test rows that are scored at each learn.")
]
Scorer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=scorers,
        help="Scorer by name, or as YAML with its options: exact, choice, f1, rouge_l, set_f1, set_exact, tool_calls, "
        "number, regex, declines, checks, likelihood or programs.",
    ),
]
General = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="General instruction data to replay; 'made' lets the base model write them (a file of that name is ./made).",
    ),
]
Guard = Annotated[
    list[str] | None,
    typer.Option(metavar="TASK", autocompletion=task_names, help="Guard this task only; repeatable."),
]
RowFiles = Annotated[
    list[str] | None,
    typer.Option("--rows", metavar="TASK=FILE", help="Rows of an older task that are not stored; repeatable."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")]


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
        found[key] = yaml_value(value)
    return found


def columns_of(text: str | None) -> dict[str, str] | None:
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


def yaml_value(text: str | None) -> Any:
    """Return a value read as YAML."""
    import yaml

    try:
        return text if text is None else read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise typer.BadParameter(f"{text!r} is no YAML: {error}") from None
