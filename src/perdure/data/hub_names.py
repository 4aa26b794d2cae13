"""Names of data sets on the hub: hub:ORG/NAME[:CONFIG][@REVISION]."""

import re
from dataclasses import dataclass
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted

PREFIX = "hub:"
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"hub:(?P<repo>{_PART}(?:/{_PART})?)(?::(?P<config>[^:@\s]+))?(?:@(?P<revision>[^:@\s]+))?")


@dataclass(frozen=True)
class HubName:
    """A data set on the hub.

    Args:
        repo: Its repository, as ORG/NAME.
        config: Its configuration; None takes the only one, or the default one.
        revision: Branch, tag or commit; None takes the main branch.
    """

    repo: str
    config: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        config = f":{self.config}" if self.config else ""
        return f"{PREFIX}{self.repo}{config}{f'@{self.revision}' if self.revision else ''}"

    @property
    def path(self) -> Path:
        """The name as a path, for settings and requests that also take paths of files."""
        return Path(str(self))


def is_hub(path: Path | str) -> bool:
    """Return whether a path is the name of a data set on the hub."""
    return str(path).startswith(PREFIX)


def hub_name(path: Path | str) -> HubName:
    """Return the data set that a path names.

    Raises:
        BadInput: The path is no such name.
    """
    match = _NAME.fullmatch(str(path))
    if match is None:
        raise BadInput(
            f"{quoted(str(path))} names no data set on the hub; write hub:ORG/NAME, hub:ORG/NAME:CONFIG or "
            "hub:ORG/NAME:CONFIG@REVISION"
        )
    return HubName(match["repo"], match["config"], match["revision"])
