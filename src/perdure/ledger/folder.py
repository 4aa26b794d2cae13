"""The records of a workspace in its folder, for its checks and its commands."""

from pathlib import Path

from perdure.core.config import Config
from perdure.ledger.history import History
from perdure.ledger.objects import ObjectStore
from perdure.ledger.scores import ScoreBook

DATABASE, OBJECTS = "ledger.sqlite", "objects"


class LedgerFolder(History, ScoreBook):
    """Entries, refs, rows, objects and scores of one workspace.

    Args:
        root: Its folder.
        config: The content of `perdure.json`.
    """

    def __init__(self, root: Path, config: Config) -> None:
        root = root.absolute()  # connections are opened later, perhaps after a change of the working folder
        super().__init__(root / DATABASE, ObjectStore(root / OBJECTS))
        self.root = root
        self.config = config
