"""`perdure init`: make a workspace."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from perdure.cli.names import dtypes
from perdure.cli.options import AsJson, Device, Folder
from perdure.cli.output import counted, emit, print_message, print_text, short
from perdure.cli.progress import progress
from perdure.core.device import ANY

CAN = "this model can learn, be edited and be exported"


def init(
    ctx: typer.Context,
    target: Annotated[Path | None, typer.Argument(metavar="DIR", show_default="the workspace", help="Folder.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME_OR_PATH", help="Model folder, hub id, or the embedded model.")
    ] = "smollm2-135m",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    dtype: Annotated[
        str,
        typer.Option(
            autocompletion=dtypes,
            help="Dtype of the frozen weights: auto (the checkpoint's own), bfloat16, float16 or float32.",
        ),
    ] = "auto",
    quantization: Annotated[
        Literal["nf4", "int8"] | None,
        typer.Option(help="Hold the frozen weights of linear layers in 4 bits (nf4) or 8 (int8), with bitsandbytes."),
    ] = None,
    attn_implementation: Annotated[
        str | None,
        typer.Option(
            help="What computes attention, by transformers' names: eager, sdpa, flash_attention_2, flex_attention. Without "
            "it, transformers chooses; no id depends on it."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    keep_rows: Annotated[
        Literal["needed", "all"],
        typer.Option(help="Rows whose text is stored: memory and test rows, or all (needed by recipes such as joint)."),
    ] = "needed",
    guards: Annotated[
        Literal["default", "none"],
        typer.Option(
            envvar="PERDURE_GUARDS",
            help="Abilities that each learn scores, to show what the model lost: default (drift and instructions) or none.",
        ),
    ] = "default",
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_ID",
            help="Start from a LoRA adapter of this model, as PEFT writes it: a folder, or a hub id as ORG/NAME or "
            "ORG/NAME@REVISION. It stays part of the base.",
        ),
    ] = None,
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a workspace in DIR for a base model, which is never changed.

    Example: perdure init support --model smollm2-135m
    """
    from perdure.bridges.models import slow_notice
    from perdure.workflows.export.card_record import initial_adapter
    from perdure.workflows.guards.attach import add_default_guards
    from perdure.workflows.init import init as make
    from perdure.workflows.init import other_base
    from perdure.workspace.facade import Workspace

    named = ctx.obj or (folder if str(ctx.get_parameter_source("folder")).endswith("COMMANDLINE") else None)
    if target and named and target.resolve() != named.resolve():
        raise typer.BadParameter(f"{target} and -w {named}: one workspace is made at a time; give one of them")
    with progress(f"reading model {model}") as tick:
        options: dict[str, Any] = {"revision": revision, "dtype": dtype, "device": device, "seed": seed}
        options |= {"quantization": quantization, "attn_implementation": attn_implementation}
        options |= {"keep_rows": keep_rows, "adapter": adapter}
        ws = Workspace(make(target or folder or Path(), model, **options, tick=tick), device or ANY)
        add_default_guards(ws.session, guards)
    base, dtype = ws.ledger.resolve("head"), ws.ledger.config["dtype"]
    if slow := slow_notice(dtype, ws.session.device):
        print_message(f"notice: {slow}")
    if other := other_base(ws.ledger):
        print_message(f"notice: {other}")
    given = initial_adapter(ws.ledger)
    if as_json:
        record: dict[str, Any] = {"workspace": str(ws.ledger.root), "entry": base.id, "base": base.base, "dtype": dtype}
        record |= {"quantization": quantization} if quantization else {}
        record |= {"attn_implementation": attn_implementation} if attn_implementation else {}
        record |= {"adapter": given.to_json()} if given else {}
        return emit({**record, "capabilities": ws.capabilities})
    kind = f"{dtype}, linear layers in {quantization}" if quantization else dtype
    print_text(f"workspace {ws.ledger.root}: base {short(base.id)}, {model} in {kind}")
    if given:
        layers = counted(given.modules, "layer")
        print_text(
            f"it starts from the adapter {given.folder} ({layers}, rank {given.rank}), which is part of the base"
        )
    refused = ws.capabilities["no_editing"]
    print_text(f"this model can learn and be exported, but not be edited: {refused}" if refused else CAN)
    if hung := [guard.name for guard in ws.ledger.guards()]:
        print_text(f"each learn scores {' and '.join(hung)} too; 'perdure guard list' shows these guards")
    for note in [ws.capabilities["no_adapter"], *ws.capabilities["notes"]]:
        if note:
            print_message(f"note: {note}")
