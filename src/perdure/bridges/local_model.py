"""Where a base model is on this machine. Nothing here loads torch or fetches anything."""

from pathlib import Path

from perdure.bridges.embedded import NAME, embedded_folder
from perdure.core.errors import BadInput


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """Return the folder of a model: a folder, the embedded default or a hub id; None where it is not on this machine."""
    try:
        folder = embedded_folder() if name == NAME else Path(name)
    except BadInput:  # there is no home, and so no folder of models
        return None
    if folder.is_dir():
        return folder
    return None if name == NAME else _in_hub_cache(name, revision)


def _in_hub_cache(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # a path that is not there any more
        return None
    return Path(found).parent if isinstance(found, str) else None
