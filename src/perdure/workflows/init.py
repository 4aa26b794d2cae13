"""Make a workspace: check the base model, and write its ledger."""

import os
from pathlib import Path
from typing import cast

from perdure.core.canonical import content_hash
from perdure.core.config import Config
from perdure.core.device import ANY
from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.values import shown
from perdure.ledger import Ledger
from perdure.ledger.store import KeepRows, place_of

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
    tick: Tick | None = None,
) -> Ledger:
    """Make a workspace in a folder and return its ledger; for the arguments see `Workspace.init`.

    `tick` is called with (what, done, total) while the model's files are hashed.

    Raises:
        BadInput: The folder is a workspace already, the model cannot be had, is not sound, or cannot be trained and scored in
            batches, or `seed`, `device` or `keep_rows` is not valid. Nothing is made then.
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
    return Ledger.create(Path(path), cast(Config, config | {name: value for name, value in optional.items() if value}))
