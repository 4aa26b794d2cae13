"""`perdure workspace`: pack a workspace into one file, unpack it, and set where the base model is now."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.options import Above, App, AsJson, Folder, Force, open_workspace
from perdure.cli.output import counted, emit, print_message, print_text
from perdure.cli.progress import progress

workspace = App(
    no_args_is_help=True,
    help="Move a workspace, or make a backup of it.\n\nExample: perdure workspace pack support.tar.gz",
)


@workspace.callback()
def above(folder: Above = None) -> None:
    """Take the workspace before the command's name too."""


@workspace.command("pack")
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive to write: .tar.gz, .tgz or .tar.")],
    with_base: Annotated[bool, typer.Option("--with-base", help="Pack the base model too.")] = False,
    force: Force = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Write the workspace into one archive, also while somebody learns in it: its ledger, as it is now, and all objects.

    Checkpoints of learns that were stopped, and what 'perdure gc' would remove, stay out.

    Example: perdure workspace pack support.tar.gz --with-base
    """
    ws = open_workspace(folder)
    with progress("packing") as tick:
        packed = ws.pack(file, with_base=with_base, force=force, tick=tick)
    if as_json:
        return emit(packed.to_json())
    counts = f"{counted(packed.entries, 'entry')}, {counted(packed.objects, 'object')}"
    print_text(f"{packed.file}: {counts}{', the base model' if packed.base else ''}; {packed.bytes:,} bytes")
    if not packed.base:
        print_message("the base model is not in it; --with-base packs it too")


@workspace.command("unpack")
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive that 'workspace pack' wrote.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the new workspace; it must not be there.")],
    as_json: AsJson = False,
) -> None:
    """Make a new workspace of an archive and hash everything in it; nothing is left of an archive that is not sound.

    Example: perdure workspace unpack support.tar.gz support
    """
    from perdure.workflows.pack import unpack as carry_out

    with progress("unpacking") as tick:
        unpacked = carry_out(file, folder, tick)
    if as_json:
        return emit(unpacked.to_json())
    print_text(
        f"{unpacked.workspace}: {counted(unpacked.entries, 'entry')} and {counted(unpacked.objects, 'object')}, all as recorded"
    )
    if unpacked.lacks_model:
        print_message(
            f"its base model is not at {unpacked.model}; 'perdure relocate -w {unpacked.workspace} --model PATH' sets where it is"
        )


@workspace.command("relocate")
def relocate(
    model: Annotated[str, typer.Option(metavar="NAME_OR_PATH", help="Folder of the base model, or its hub id.")],
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Point the workspace to where its base model is now; another model is refused, by the hashes of its files.

    Example: perdure relocate --model ../models/smollm2
    """
    ws = open_workspace(folder)
    with progress("hashing the base model") as tick:
        place = ws.relocate(model, revision=revision, tick=tick)
    if as_json:
        return emit({"model": ws.ledger.model, "folder": str(place)})
    print_text(f"the base model is {ws.ledger.model}, with the same weights as before")
