"""`perdure export`: take a state out of the workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.explain import size_of
from perdure.cli.names import task_names
from perdure.cli.options import AsJson, At, Device, Folder, open_workspace
from perdure.cli.output import clip, counted, emit, facts, print_message, print_text, short, table, warn
from perdure.cli.progress import progress
from perdure.cli.stdin import at_terminal

if TYPE_CHECKING:
    from perdure.bridges.hub_push import Repository
    from perdure.workflows.export.every import EveryExport
    from perdure.workflows.export.push import Pushed
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
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Write a folder for each task with an adapter or labels of its own, one for what all share, and the router.",
        ),
    ] = False,
    classifier: Annotated[
        bool,
        typer.Option(
            "--classifier",
            help="Write what answers tasks with labels (recipe slda), with a program that needs no perdure.",
        ),
    ] = False,
    push: Annotated[
        str | None, typer.Option("--push", metavar="ORG/NAME", help="Push it to this model repository on the hub.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Push to a public repository; else it is private.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Push without asking.")] = False,
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Write an entry as a plain PEFT adapter, or merged as a whole model, and verify the facts in force on it.

    With --push the files are listed with their sizes and, after a question, pushed to the hub as one commit.

    Example: perdure export adapter/ --task broadband
    """
    if (public or yes) and push is None:
        raise typer.BadParameter(f"{'--public' if public else '--yes'} belongs to --push")
    if push is not None and not yes and not at_terminal():
        raise typer.BadParameter("nobody is at a terminal to be asked; give --yes to push", param_hint="--push")
    ws = open_workspace(folder, device)
    if classifier:
        if merged or rank is not None or dtype is not None or push is not None:
            raise typer.BadParameter("--classifier writes no adapter; leave --merged, --rank, --dtype and --push out")
        with progress("exporting"):
            made = ws.export_classifier(target, at, task)
        if as_json:
            return emit(made.to_json())
        return print_text(facts({**made.to_json(), "tasks": ", ".join(made.tasks), "files": ", ".join(made.files)}))
    if every:
        if merged or task is not None or push is not None:
            raise typer.BadParameter("--all writes every adapter to a folder; leave --merged, --task and --push out")
        with progress("exporting"):
            folders = ws.export_all(target, at=at, rank=rank, max_rank=max_rank, dtype=dtype)
        return emit(folders.to_json()) if as_json else _show_all(folders)
    repository = _repository(push, public)
    with progress("exporting"):
        written = ws.export(target, at=at, merged=merged, rank=rank, max_rank=max_rank, dtype=dtype, task=task)
    if not as_json:
        told = written.to_json()
        told["experts"] = told.get("experts") or None  # a dense model has none
        print_text(facts({**told, "files": ", ".join(written.files), **_checks(written)}))
    if written.facts and written.facts.lost and not as_json:
        names = ", ".join(f"{short(gone.fact)} {gone.subject}" for gone in written.facts.lost)
        warn(f"the export no longer says {counted(len(written.facts.lost), 'fact')}: {names}")
    pushed = _push(written, repository, public=public, yes=yes) if repository else None
    if as_json:
        return emit({**written.to_json(), **({"pushed": pushed and pushed.to_json()} if repository else {})})
    if pushed:
        print_text(f"pushed to {pushed.url}, commit {short(pushed.commit)}")


def _show_all(made: "EveryExport") -> None:
    """Print the folders that were written, and the facts that one of them lost."""
    own = {name: f"{name}, a classifier of labels" for name in made.classifiers}
    ways = {task: own.get(folder or "", folder or "none") for task, folder in made.tasks.items()}
    pairs = {"folder": made.folder, "entry": made.entry, "rank": made.rank, "max_lora_rank": made.max_lora_rank}
    print_text(facts({**pairs, **ways, "router": "router.json, router.safetensors" if made.router else None}))
    for name, one in made.adapters.items():
        if one.facts and one.facts.lost:
            lost = ", ".join(f"{short(gone.fact)} {gone.subject}" for gone in one.facts.lost)
            warn(f"the adapter {name} no longer says {counted(len(one.facts.lost), 'fact')}: {lost}")


def _repository(name: str | None, public: bool) -> "Repository | None":
    """Return the repository to push to, as the hub has it: what would end a push is found before anything is written."""
    from perdure.bridges.hub_push import find_repository

    return None if name is None else find_repository(name, public=public)


def _push(written: "Export", repository: "Repository", *, public: bool, yes: bool) -> "Pushed | None":
    """List what would be pushed, ask, and push it; None where the answer is no."""
    from perdure.workflows.export.push import files_of, push

    files = files_of(Path(written.folder))
    names = {file.name for file in files}
    print_message(table(["file", "size"], [[file.name, size_of(file.bytes)] for file in files], right=(1,)))
    kind = "private" if repository.private else "PUBLIC"
    what = f"an update of {repository.name}" if repository.exists else f"the new repository {repository.name}"
    print_message(f"{counted(len(files), 'file')}, {size_of(sum(f.bytes for f in files))}, to {what}, {kind}")
    if repository.exists and public and repository.private:
        print_message(f"{repository.name} stays private; the hub's page of the repository makes it public")
    if other := [name for name in repository.files if name not in names and name != ".gitattributes"]:
        print_message(f"files that are there already stay: {clip(', '.join(other), 100)}")
    if not yes and not typer.confirm("Push", default=False, err=True):
        print_message(f"nothing was pushed; the export is in {written.folder}")
        return None
    with progress(f"pushing to {repository.name}"):
        return push(written, repository)


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
