"""What every verb of a workspace needs: the session with the ledger and the model."""

import os
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.core.config import CapabilitiesJson
from perdure.core.device import ANY
from perdure.ledger import Ledger
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime

AnyPath = str | os.PathLike[str]


class Opened:
    """A workspace that is open.

    Args:
        ledger: The ledger in its folder.
        device: Where the model is loaded: "auto" (the accelerator if there is one, else the CPU), "cpu", "cuda", "cuda:N"
            or "mps". No id of an entry depends on it.

    Raises:
        BadInput: No device has this name, or it is not here.
    """

    def __init__(self, ledger: Ledger, device: str = ANY):
        self.session = Session(ledger, device)

    @property
    def ledger(self) -> Ledger:
        """The records of the workspace."""
        return self.session.ledger

    @property
    def runtime(self) -> "Runtime":
        """The base model in memory, loaded on first use."""
        return self.session.runtime

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.session.tokenizer

    @property
    def capabilities(self) -> CapabilitiesJson:
        """What can be done with the base model, as `init` determined; empty in a workspace that is older than that."""
        return self.session.capabilities


def warn(notices: Iterable[str]) -> None:
    """Give each notice as a Python warning of the line that called the verb."""
    for text in notices:
        warnings.warn(text, stacklevel=3)
