"""Make a workspace: check the base model, and write its ledger."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from perdure.core.canonical import content_hash
from perdure.core.config import Config
from perdure.core.device import ANY
from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.values import shown
from perdure.ledger import Ledger
from perdure.ledger.records import InitialAdapter
from perdure.ledger.store import KeepRows, place_of
from perdure.workflows.export.card_record import initial_adapter, origin

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_MODEL = "smollm2-135m"


def init(
    path: str | os.PathLike[str],
    model: str = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    quantization: str | None = None,
    attn_implementation: str | None = None,
    device: str = ANY,
    seed: int = 0,
    keep_rows: KeepRows = "needed",
    adapter: str | os.PathLike[str] | None = None,
    tick: Tick | None = None,
) -> Ledger:
    """Make a workspace in a folder and return its ledger; for the arguments see `Workspace.init`.

    `tick` is called with (what, done, total) while the model's files are hashed.

    Raises:
        BadInput: The folder is a workspace already, the model cannot be had, is not sound, or cannot be trained and scored in
            batches, `adapter` does not fit it, or `seed`, `device` or `keep_rows` is not valid. Nothing is made then.
    """
    from perdure.bridges import attention, identity, models
    from perdure.bridges.capabilities import capabilities_of
    from perdure.bridges.quantization import check_kind

    if keep_rows not in ("needed", "all"):
        raise BadInput(f"keep_rows is {keep_rows!r}; it is needed (text of memory and test rows) or all")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise BadInput(f"seed is {shown(seed)}; it is a whole number from 0 to 2^63 - 1")
    models.choose_device(device)
    check_kind(quantization)
    attention.check_name(attn_implementation)
    Ledger.refuse_existing(Path(path))
    folder = models.find_model(model, revision)
    base = models.check_base(folder, dtype, device, quantization, attn_implementation)
    kind = str(base.dtype).removeprefix("torch.")
    weights = identity.fingerprint(folder, tick)
    given = None if adapter is None else _given(os.fspath(adapter), folder, weights)
    place = place_of(Path(path), folder) if Path(model).is_dir() else None
    optional = {
        "model_here": place,
        "quantization": quantization,
        "attn_implementation": attn_implementation,  # in no id, as the device
    }
    config: Config = {
        "model": str(folder) if Path(model).is_dir() else model,
        "revision": revision,
        "dtype": kind,
        "seed": seed,
        "weights": weights,
        "base": content_hash([weights, kind, *([quantization] if quantization else [])]),
        "stamp": identity.stamp(folder),
        "keep_rows": keep_rows,
        "capabilities": capabilities_of(base).to_json(),
    }
    whole = cast(Config, config | {name: value for name, value in optional.items() if value})
    return Ledger.create(Path(path), whole, *(given or ()))


def _given(adapter: str, base: Path, weights: str) -> "tuple[dict[str, Tensor], InitialAdapter]":
    """Return the adapter that the workspace begins with, as the tensors of its slot, and the note of it.

    Raises:
        BadInput: It cannot be had, does not fit the base model, or its configuration names a folder with other weights.
    """
    from perdure.bridges import identity
    from perdure.bridges.peft_folder import find_adapter, read_peft_folder

    given = find_adapter(adapter)
    found = read_peft_folder(given.folder, base)
    trained_on = Path(found.trained_on) if found.trained_on else base
    is_elsewhere = trained_on.is_absolute() and trained_on.resolve() != base.resolve()
    if is_elsewhere and any(trained_on.glob("*.safetensors")) and identity.fingerprint(trained_on) != weights:
        raise BadInput(
            f"the adapter in {adapter} was trained on the model in {trained_on}, whose files differ from those in {base}; give "
            "that one with --model"
        )
    note = InitialAdapter(given.name, found.modules, found.rank, found.trained_on, given.revision)
    return found.tensors, note


def other_base(ledger: Ledger) -> str | None:
    """Return a notice where the adapter that the workspace begins with names another base model; None where it does not.

    A name decides nothing: the same model has several. Shapes that fit and another name are left to the user to judge.
    """
    note = initial_adapter(ledger)
    if note is None or note.trained_on is None or Path(note.trained_on).is_absolute():
        return None
    if _end(note.trained_on) in {_end(ledger.model), _end(origin(ledger))}:
        return None
    return (
        f"the adapter says that it was trained on {note.trained_on}, and this workspace is for {ledger.model}; its shapes fit, "
        "and no more can be known: see whether 'perdure predict' answers as it should"
    )


def _end(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1].lower()
