"""`perdure export`: take a state out of the workspace."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.options import AsJson, At, Device, Folder, open_workspace
from perdure.cli.output import counted, emit, facts, short, tell, warn
from perdure.cli.progress import progress


def export(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    at: At = "head",
    merged: Annotated[bool, typer.Option("--merged", help="Write a whole model instead of an adapter.")] = False,
    rank: Annotated[int | None, typer.Option(min=1, help="Compress the adapter to this rank.")] = None,
    max_rank: Annotated[int, typer.Option(min=1, help="Largest rank of an adapter; vLLM serves up to 512.")] = 512,
    dtype: Annotated[
        str | None, typer.Option(show_default="the model's", help="Dtype of the adapter in the server.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(show_default="what all tasks share", help="Write the adapter of this task alone."),
    ] = None,
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Write an entry as a plain PEFT adapter, or merged as a whole model, and verify the facts in force on it."""
    from perdure.workflows.export.export import export as write

    ws = open_workspace(folder, device)
    with progress("exporting"):
        found = write(ws.session, target, at=at, merged=merged, rank=rank, max_rank=max_rank, dtype=dtype, task=task)
    if as_json:
        return emit(found)
    tell(facts({**found, "files": ", ".join(found["files"]), **_told(found)}))
    if lost := (found["facts"] or {}).get("lost"):
        names = ", ".join(f"{short(gone['fact'])} {gone['subject']}" for gone in lost)
        warn(f"the export no longer says {counted(len(lost), 'fact')}: {names}")


def _told(found: dict[str, Any]) -> dict[str, str]:
    """Return in words how the export was checked."""
    told = {}
    if asked := found["facts"]:
        cast = f" after the cast to {found['dtype']}" if "dtype" in found else ""
        told["facts"] = f"{asked['said']} of {asked['n']} said{cast}, {asked['said_before']} in the workspace"
        told["loss of their targets"] = _change(asked)
    if "held_out" in found:
        told["held_out"] = _change(found["held_out"])
    return told


def _change(loss: dict[str, float]) -> str:
    return f"{loss['nll_before']:.4f} -> {loss['nll']:.4f} nats a token"
