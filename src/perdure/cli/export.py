"""`perdure export`: take a state out of the workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.names import task_names
from perdure.cli.options import AsJson, At, Device, Folder, open_workspace
from perdure.cli.output import counted, emit, facts, print_text, short, warn
from perdure.cli.progress import progress

if TYPE_CHECKING:
    from perdure.workflows.export.result import Export, FactsCheck, Losses


def export(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    at: At = "head",
    merged: Annotated[bool, typer.Option("--merged", help="Write a whole model instead of an adapter.")] = False,
    rank: Annotated[int | None, typer.Option(min=1, help="Compress the adapter to this rank.")] = None,
    max_rank: Annotated[int, typer.Option(min=1, help="Largest rank of an adapter; vLLM serves up to 512.")] = 512,
    dtype: Annotated[
        str | None,
        typer.Option(
            show_default="the model's", help="Dtype of the adapter in the server: bfloat16, float16 or float32."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            show_default="what all tasks share", autocompletion=task_names, help="Write the adapter of this task alone."
        ),
    ] = None,
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Write an entry as a plain PEFT adapter, or merged as a whole model, and verify the facts in force on it.

    Example: perdure export adapter/ --task broadband
    """
    ws = open_workspace(folder, device)
    with progress("exporting"):
        written = ws.export(target, at=at, merged=merged, rank=rank, max_rank=max_rank, dtype=dtype, task=task)
    if as_json:
        return emit(written.to_json())
    print_text(facts({**written.to_json(), "files": ", ".join(written.files), **_checks(written)}))
    if written.facts and written.facts.lost:
        names = ", ".join(f"{short(gone.fact)} {gone.subject}" for gone in written.facts.lost)
        warn(f"the export no longer says {counted(len(written.facts.lost), 'fact')}: {names}")


def _checks(export: "Export") -> dict[str, str]:
    """Return in words how the export was checked."""
    from perdure.workflows.export.result import AdapterExport

    adapter = export if isinstance(export, AdapterExport) else None
    words = {}
    if check := export.facts:
        cast = f" after the cast to {adapter.dtype}" if adapter else ""
        words["facts"] = f"{check.said} of {check.n} said{cast}, {check.said_before} in the workspace"
        words["loss of their targets"] = _change(check)
    if adapter and adapter.held_out:
        words["held_out"] = _change(adapter.held_out)
    return words


def _change(loss: "Losses | FactsCheck") -> str:
    return f"{loss.nll_before:.4f} -> {loss.nll:.4f} nats a token"
