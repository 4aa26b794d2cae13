"""Export: a state as an ordinary PEFT adapter, or merged into a whole model, with a model card."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError

from perdure.core.errors import BadInput, NotFound, PerdureError
from perdure.core.files import folder_aside
from perdure.core.outputs import refuse_own
from perdure.core.slots import is_dense
from perdure.ledger import Entry
from perdure.workflows.export.card import card
from perdure.workflows.export.check import DTYPES, check_adapter, check_merged_facts
from perdure.workflows.export.result import AdapterExport, Export, MergedExport
from perdure.workflows.session import Session

PROBE = "The quick brown fox jumps over the lazy dog. 12 + 30 = 42.\nQ: What is the capital of France?\nA: Paris\n"
MAX_RANK = 512  # the largest that vLLM serves
CLASSIFIER = (
    "so there is no adapter to export; --classifier writes the means and covariance that answer it, as safetensors"
)
PROBE_ROWS = 4  # test rows that the probe takes along, since merging must agree where the adapter acts


@dataclass(frozen=True)
class ExportRequest:
    """What is exported.

    Args:
        at: Ref or entry.
        merged: Write a whole model that needs no PEFT, checked against the adapter on its base; else a PEFT adapter.
        rank: Rank of the adapter, reached by truncation or padding. None leaves the adapter whole, padded to a rank of vLLM.
        max_rank: Largest rank of an adapter; the default is the largest that vLLM serves.
        dtype: Dtype of the adapter in its server, with which the facts in force are verified again; that of the workspace's
            model by default. The files have the dtype that was trained and scored.
        task: Task whose requests it is for, if that has an adapter of its own; None for what all tasks share.
    """

    at: str = "head"
    merged: bool = False
    rank: int | None = None
    max_rank: int = MAX_RANK
    dtype: str | None = None
    task: str | None = None


def export(session: Session, folder: str | os.PathLike[str], request: ExportRequest = ExportRequest()) -> Export:
    """Write the state at a ref as files that other tools load; the folder appears whole or not at all.

    Args:
        session: Of the workspace; it is only read.
        folder: Folder to make; it may exist if it is empty.
        request: What is exported.

    Raises:
        BadInput: The folder is not empty, the state has no adapter, or its rank, `rank` or `dtype` does not fit.
        NotFound: No such ref or task.
        PerdureError: The disk is full, or the merged model disagrees with the adapter.
    """
    entry, place = session.ledger.resolve(request.at), str(Path(folder))
    if request.task is not None:
        request = replace(request, task=session.ledger.task_name(request.task))
    refuse_request(session, entry, request)
    with new_folder(Path(folder)) as aside:
        made: Export
        if request.merged:
            _refuse_small_disk(session, aside)
            made = _write_merged(session, entry, request.task, aside, place)
        else:
            made = write_one(session, entry, request, aside, place)
        (aside / "README.md").write_text(card(session.ledger, entry, made), encoding="utf-8")
        made = replace(made, files=tuple(sorted(path.name for path in aside.iterdir())))
    return made


def refuse_request(session: Session, entry: Entry, request: ExportRequest) -> None:
    """Refuse what cannot be exported, before anything is written.

    Raises:
        BadInput: The state has no adapter, or its rank, `rank` or `dtype` does not fit.
        NotFound: No such task.
    """
    task, rank, max_rank = request.task, request.rank, request.max_rank
    if task is not None and task not in entry.tasks:
        known = ", ".join(sorted(map(session.ledger.shown_name, entry.tasks))) or "none yet"
        raise NotFound(f"no task {task!r} is known at {request.at}; known are {known}")
    if request.merged and (rank is not None or request.dtype is not None or max_rank != MAX_RANK):
        raise BadInput("rank and dtype are of an adapter; leave them out, or export without merging")
    if request.merged and (kind := session.ledger.config.get("quantization")):
        raise BadInput(
            f"the adapter was trained and scored over weights in {kind}; a sum with the plain weights would be another model. "
            "Export the adapter, and serve it over a base that is quantised in the same way; or merge it with PEFT and measure"
        )
    if rank is not None and not 1 <= rank <= max_rank:
        raise BadInput(f"a rank is from 1 to the cap of {max_rank}, got {rank}; --max-rank raises the cap")
    if request.dtype is not None and request.dtype not in DTYPES:
        raise BadInput(f"unknown dtype {request.dtype!r}; a server holds an adapter in {', '.join(DTYPES)}")
    labelled = session.ledger.labelled_by(entry, None if task is None else [task])
    if task is not None and labelled:
        raise BadInput(f"task {task} is answered with its labels by the untrained model, {CLASSIFIER}")
    if request.merged:
        return
    slots = session.ledger.view(entry, task)
    if not slots and len(labelled) == len(entry.tasks) > 0:
        raise BadInput(
            f"at entry {entry.id[:12]} the tasks are answered with labels by the untrained model ({', '.join(labelled)}), "
            f"{CLASSIFIER}"
        )
    if any(map(is_dense, slots)):
        raise BadInput(
            f"entry {entry.id[:12]} trained every weight (recipe `full`), which no adapter holds; export it with --merged"
        )
    if not slots and session.ledger.slots(entry):
        raise BadInput(
            f"at entry {entry.id[:12]} every task has an adapter of its own, and nothing is shared; export one with --task, all "
            "of them with --all, or make one adapter with 'perdure merge --rank R'"
        )
    if not slots:
        raise BadInput(
            f"entry {entry.id[:12]} is the base model as it was, with no adapter to export; learn a task first, "
            "or export a copy of the base with --merged"
        )
    if rank is None:
        _refuse_rank(session, slots, max_rank)


def _refuse_rank(session: Session, slots: Mapping[str, str], max_rank: int) -> None:
    """Refuse a state whose slots together have a larger rank in a module than may be written."""
    from perdure.bridges.export import too_large

    most = rank_of(session, slots)
    if most > max_rank:
        raise BadInput(too_large(most, max_rank))


def rank_of(session: Session, slots: Mapping[str, str]) -> int:
    """Return the largest rank that the slots of a view have together in a module."""
    from perdure.maths.low_rank import combine, from_tensors

    patches = combine(
        [from_tensors(session.ledger.objects.get(slot)) for name, slot in slots.items() if not is_dense(name)]
    )
    return max((patch.rank for patch in patches.values()), default=0)


def _refuse_small_disk(session: Session, aside: Path) -> None:
    """Refuse to write a model where the disk has no room for the weights of its base."""
    from perdure.bridges.sizes import weight_bytes

    needed, free = weight_bytes(session.base_folder), shutil.disk_usage(aside).free
    if needed > free:
        raise PerdureError(
            f"a merged model takes {needed / 1e6:,.0f} MB, and the disk of {aside.parent} has {free / 1e6:,.0f} MB free; free "
            "some space or choose another place"
        )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder aside that becomes `folder` when the block ends well, and is gone when it does not.

    Raises:
        BadInput: `folder` is a file, or a folder that is not empty.
        PerdureError: The disk is full or not writable.
    """
    refuse_own(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(
            f"{folder} is there already and not an empty folder; choose another, nothing is ever overwritten"
        )
    folder = folder.absolute()
    try:
        with folder_aside(folder) as aside:
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


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_one(
    session: Session, entry: Entry, request: ExportRequest, aside: Path, folder: str, least: int = 1
) -> AdapterExport:
    """Write the adapter into `aside`, which will be `folder`, of rank `least` or more where the request names none."""
    from perdure.bridges.export import write_adapter

    task, rank = request.task, request.rank
    session.load(entry, task)
    base, revision = named_base(session)
    written = write_adapter(
        aside, session.runtime, base=base, revision=revision, rank=rank, least=least, max_rank=request.max_rank
    )
    check = check_adapter(session, entry, task, aside, request.dtype, compressed=rank is not None)
    return AdapterExport(
        folder=folder,
        entry=entry.id,
        task=task,
        rank=written.rank,
        max_lora_rank=written.max_lora_rank,
        relative_error=written.relative_error,
        experts=written.experts,
        dtype=check.dtype,
        facts=check.facts,
        held_out=check.held_out,
    )


def named_base(session: Session) -> tuple[str, str | None]:
    """Return the name of the base model for a reader of an export, a hub id or a folder, and its revision."""
    model = session.ledger.config["model"]
    # A hub id loads the same weights anywhere; the embedded model stands in no hub, only in its cache folder.
    base = model if model.count("/") == 1 and not Path(model).is_absolute() else str(session.runtime.folder)
    return base, session.ledger.config.get("revision")


def _write_merged(session: Session, entry: Entry, task: str | None, aside: Path, folder: str) -> MergedExport:
    """Write the merged model into `aside`, which will be `folder`."""
    from perdure.bridges.export import check_merged, load_merged, probe, write_merged
    from perdure.maths.low_rank import from_tensors

    session.load(entry, task)
    text = _probe_text(session, entry)
    expected = probe(session.runtime.base, session.runtime.model, text)
    patches = from_tensors(session.runtime.skill())
    session.load_slots({name: slot for name, slot in session.ledger.view(entry, task).items() if is_dense(name)})
    write_merged(aside, session.runtime, patches)
    written = load_merged(aside, session.runtime.base)
    check = check_merged(written, text, expected)
    facts = check_merged_facts(session, entry, task, written)
    return MergedExport(
        folder=folder, entry=entry.id, task=task, difference=check.difference, tolerance=check.tolerance, facts=facts
    )


def _probe_text(session: Session, entry: Entry) -> str:
    """Return a fixed text with some test rows of each task in front of it."""
    rows = [row for name in entry.tasks for row in session.task(name, entry).test[:PROBE_ROWS]]
    texts = [row.prompt + row.completion + "\n".join(message.content for message in row.messages) for row in rows]
    return "\n".join([*texts[-2 * PROBE_ROWS :], PROBE])
