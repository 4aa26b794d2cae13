"""The folder of what is measured once for all workspaces, and can be measured again."""

import os
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.workflows.session import Session


def cached(session: Session, what: str) -> Path:
    """Return the folder of measurements of one kind: in the user's cache; else in the workspace."""
    from perdure.bridges.embedded import cache_folder

    try:
        folder = cache_folder() / what
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, BadInput):  # not writable, or there is no home
        return session.ledger.root / what
    return folder if os.access(folder, os.W_OK) else session.ledger.root / what
