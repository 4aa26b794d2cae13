"""Files of a model or an adapter on the hub, fetched once by the hub's own client."""

from collections.abc import Sequence
from pathlib import Path

from perdure.core.errors import BadInput


def fetched(name: str, revision: str | None, patterns: Sequence[str], what: str, instead: str) -> Path:
    """Return the folder in the hub's cache with files of a repository.

    Args:
        name: Id of the repository, as ORG/NAME.
        revision: Branch, tag or commit; None takes the main branch.
        patterns: Of the names of the files: never code, never pickles.
        what: What it is, in an error: "model" or "adapter".
        instead: What the user may do where the hub cannot be reached, for the error.

    Raises:
        BadInput: There is no such repository or revision, the hub cannot be reached, or its cache cannot be written.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise BadInput(
            f"{what} {name!r} is neither a folder nor in the local hub cache, and the hub cannot be reached; go online, {instead}"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        at = f" at revision {revision}" if revision else ""
        raise BadInput(f"the hub has no {what} {name!r}{at} that you can read: {error}") from error
    except OSError as error:
        raise BadInput(
            f"cannot store {what} {name!r} in the hub's cache: {error}; set HF_HOME to a folder that you may write to"
        ) from error


def commit_of(folder: Path) -> str | None:
    """Return the commit of a folder of the hub's cache; None of any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None
