"""Export: a state as an ordinary PEFT adapter, or merged into a whole model, with a model card that says what it can do."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from perdure.core.errors import BadInput, PerdureError
from perdure.ledger import Entry
from perdure.workflows.card import card

if TYPE_CHECKING:
    from perdure.workflows.workspace import Workspace

PROBE = "The quick brown fox jumps over the lazy dog. 12 + 30 = 42.\nQ: What is the capital of France?\nA: Paris\n"
PROBE_ROWS = 4  # test rows that the probe takes along, since merging must agree where the adapter acts


def export(
    ws: "Workspace",
    folder: str | os.PathLike[str],
    at: str = "head",
    merged: bool = False,
    rank: int | None = None,
) -> dict[str, Any]:
    """Write the state at a ref as files that other tools load; the folder appears whole or not at all.

    Args:
        ws: The workspace; it is only read.
        folder: Folder to make; it may exist if it is empty.
        at: Ref or entry.
        merged: Write a whole model that needs no PEFT, checked against the adapter on its base; else a PEFT adapter.
        rank: Rank of the adapter, reached by truncation or padding. None keeps everything, padded to a rank vLLM takes.

    Returns:
        "folder", "entry", "kind" ("adapter" or "merged"), "files", "rank" (None when merged); with `rank` also
        "relative_error" of the truncation, and when merged "difference" and "tolerance" of the largest logit.

    Raises:
        BadInput: The folder is not empty, the state has no adapter or more than one, or `rank` does not fit.
        NotFound: No such ref.
        PerdureError: The disk is full, or the merged model disagrees with the adapter.
    """
    entry = ws.ledger.resolve(at)
    slots = ws.ledger.slots(entry)
    if merged and rank is not None:
        raise BadInput("a rank is for the adapter form; leave it out, or export without merging")
    if rank is not None and rank < 1:
        raise BadInput(f"a rank is 1 or more, got {rank}")
    if not merged and "dense" in slots:
        raise BadInput(
            f"entry {entry.id[:12]} trained every weight (recipe `full`), which no adapter holds; export it with --merged"
        )
    if not merged and not slots:
        raise BadInput(
            f"entry {entry.id[:12]} is the base model as it was, with no adapter to export; learn a task first, "
            "or export a copy of the base with --merged"
        )
    with new_folder(Path(folder)) as aside:
        told = _write_merged(ws, entry, aside) if merged else _write_adapter(ws, entry, aside, rank)
        kind = "merged" if merged else "adapter"
        (aside / "README.md").write_text(card(ws, entry, kind, told), encoding="utf-8")
        files = sorted(path.name for path in aside.iterdir())
    return {"folder": str(Path(folder)), "entry": entry.id, "kind": kind, "files": files, "rank": None, **told}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder aside that becomes `folder` when the block ends well, and is gone when it does not.

    Raises:
        BadInput: `folder` is a file, or a folder that is not empty.
        PerdureError: The disk is full or not writable.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(
            f"{folder} is there already and not an empty folder; choose another, nothing is ever overwritten"
        )
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise PerdureError(f"cannot write {folder}: {error.strerror or error}; choose another place") from error
    try:
        yield aside
        mask = os.umask(0)  # mkdtemp and safetensors make private files; an export is as readable as any other
        os.umask(mask)
        for path in (*aside.rglob("*"), aside):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
            _to_disk(path)
        os.replace(aside, folder)
    except (OSError, SafetensorError) as error:  # the second is how safetensors reports a full disk
        why = getattr(error, "strerror", None) or error
        raise PerdureError(f"cannot write {folder}: {why}; free some space or choose another place") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_adapter(ws: "Workspace", entry: Entry, aside: Path, rank: int | None) -> dict[str, Any]:
    from perdure.bridges.export import write_adapter

    ws.lay(entry)
    model = ws.ledger.config["model"]
    # A hub id loads the same weights anywhere; the embedded model stands in no hub, only in its cache folder.
    base = model if model.count("/") == 1 and not Path(model).is_absolute() else str(ws.runtime.folder)
    return write_adapter(aside, ws.runtime, base=base, revision=ws.ledger.config.get("revision"), rank=rank)


def _write_merged(ws: "Workspace", entry: Entry, aside: Path) -> dict[str, Any]:
    from perdure.bridges.export import check_merged, probe, write_merged
    from perdure.maths.low_rank import from_tensors

    ws.lay(entry)
    text = _probe_text(ws, entry)
    expected = probe(ws.runtime.base, ws.runtime.model, text)
    patches = from_tensors(ws.runtime.skill())
    ws.lay_slots({name: found for name, found in ws.ledger.slots(entry).items() if name == "dense"})
    write_merged(aside, ws.runtime, patches)
    return dict(check_merged(aside, ws.runtime.base, text, expected))


def _probe_text(ws: "Workspace", entry: Entry) -> str:
    """Return a fixed text with some test rows of each task in front of it."""
    rows = [row for name in entry.tasks for row in ws.task(name, entry).test[:PROBE_ROWS]]
    texts = [row.prompt + row.completion + "\n".join(message.content for message in row.messages) for row in rows]
    return "\n".join([*texts[-2 * PROBE_ROWS :], PROBE])
