"""`perdure trace`: where the model stores an answer, and which layer to edit."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from perdure.cli.options import AsJson, At, Device, Folder, open_workspace
from perdure.cli.output import emit, print_message, print_text, warn
from perdure.cli.progress import progress
from perdure.core.errors import BadInput

if TYPE_CHECKING:
    from perdure.ledger.records import SweepResult, TracedAverage, TracedPrompt
    from perdure.workflows.inspect.trace_spec import TraceSpec
    from perdure.workspace.facade import Workspace


def trace(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Beginning of a sentence with the subject, or {}, in it.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="S", help="Subject, which gets the noise.")
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option("--facts", metavar="FILE", help="Facts, JSON Lines: average over those that the model gives."),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Edit each fact alone in each layer; nothing is recorded.")
    ] = False,
    layers: Annotated[
        list[int] | None,
        typer.Option("--layers", min=0, metavar="N...", show_default="evenly over the depth", help="Layers to sweep."),
    ] = None,
    kind: Annotated[
        Literal["block", "mlp", "attention", "all"] | None,
        typer.Option("--kind", show_default="all; with --sweep none", help="States that are restored."),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, show_default="a fifth of the depth", help="Layers of mlp or attention restored together."),
    ] = None,
    noise: Annotated[
        float | None, typer.Option(min=0, show_default="3", help="Noise in standard deviations of the embeddings.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, show_default="10", help="Number of noise samples.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, show_default="the workspace's", help="Seed of noise and edits.")
    ] = None,
    at: At = "head",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to write PNG files and JSON to.")
    ] = None,
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show where the model stores an answer: noise on the subject, and which restored state recovers the answer.

    With --facts the average over the facts of a file; with --sweep which layer to edit, by editing, since tracing does not
    predict it. The result is stored with the entry for the report.

    Example: perdure trace "{} works in" --subject "Ada Moss"
    """
    from perdure.cli.trace_screen import screen
    from perdure.workflows.inspect.sweep import sweep as sweep_layers
    from perdure.workflows.inspect.trace import trace_facts, trace_prompt

    _refuse_unclear(prompt, subject, facts, sweep, layers)
    given = {name: n for name, n in {"window": window, "noise": noise, "samples": samples}.items() if n is not None}
    if sweep and given and kind is None:
        raise typer.BadParameter(f"--{next(iter(given))} belongs to tracing; name what is restored with --kind too")
    ws = open_workspace(folder, device)
    spec = _spec(ws, kind, seed, given)
    with _new(output) as aside:
        with progress("loading the model") as tick:
            result: TracedPrompt | TracedAverage | SweepResult
            if sweep and facts:
                tracing = spec if kind else None
                result = sweep_layers(ws.session, facts, layers or (), tracing=tracing, seed=seed, at=at, tick=tick)
            elif facts:
                result = trace_facts(ws.session, facts, spec, at=at, tick=tick)
            else:
                result = trace_prompt(ws.session, prompt or "", subject or "", spec, at=at, tick=tick)
        if aside:
            _write(result, aside)
    emit(result.to_json()) if as_json else print_text(screen(result))
    if output:
        print_message(f"written to {output}")
    if not result.kept:
        warn("not stored for the report: another process writes to the workspace, or the entry is a candidate")


def _refuse_unclear(
    prompt: str | None, subject: str | None, facts: Path | None, sweep: bool, layers: list[int] | None
) -> None:
    """Refuse arguments that do not go together."""
    if facts and (prompt or subject):
        raise typer.BadParameter("give PROMPT with --subject, or a file with --facts, not both")
    if layers and not sweep:
        raise typer.BadParameter("--layers names the layers to sweep; give --sweep too")
    if sweep and not facts:
        raise typer.BadParameter("--sweep edits the facts of a file; give it with --facts")
    if not facts and not (prompt and subject):
        raise BadInput("a trace needs PROMPT and --subject, as: perdure trace 'Ann Lee lives in' --subject 'Ann Lee'")


def _spec(ws: "Workspace", kind: str | None, seed: int | None, given: dict[str, Any]) -> "TraceSpec":
    from perdure.workflows.inspect.trace_spec import KINDS, TraceSpec

    kinds = tuple(name for name in KINDS if kind in (None, "all", name))
    return TraceSpec(kinds=kinds, seed=ws.ledger.config.get("seed", 0) if seed is None else seed, **given)


def _new(output: Path | None) -> AbstractContextManager[Path | None]:
    """Return a context in which a folder is filled that appears at its end; an empty context without a folder."""
    from perdure.report.plots import refuse_without_matplotlib
    from perdure.workflows.export.export import new_folder

    if output is None:
        return nullcontext(None)
    refuse_without_matplotlib()
    return new_folder(output)


def _write(result: "TracedPrompt | TracedAverage | SweepResult", folder: Path) -> None:
    """Write the results as JSON, and as pictures."""
    from perdure.ledger.records import SweepResult, TracedPrompt
    from perdure.report import plots

    name = "sweep.json" if isinstance(result, SweepResult) else "trace.json"
    (folder / name).write_text(json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if isinstance(result, TracedPrompt):
        plots.draw_prompt(result, folder)
    elif isinstance(result, SweepResult):
        plots.draw_sweep(result, folder)
    else:
        plots.draw_average(result, folder)
