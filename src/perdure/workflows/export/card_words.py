"""Numbers and texts as a model card writes them."""

import re

from perdure.core.plain_text import visible
from perdure.workflows.export.result import FactsCheck, Losses


def plain(text: str) -> str:
    """Return a text from data as Markdown that shows it on one line: nothing in it is markup, HTML or steers a terminal."""
    return re.sub(r"([\\`*_\[\]<>&|!#~$])", r"\\\1", visible(" ".join(text.split())))


def code(text: str) -> str:
    """Return a text as it stands in a span of code."""
    return f"`{visible(' '.join(text.split())).replace('`', chr(39))}`"


def row_of(cells: list[str]) -> str:
    """Return a row of a table of cells that are Markdown already."""
    return f"| {' | '.join(cells)} |"


def short_hash(value: str | None) -> str:
    """Return the beginning of a hash as code; empty where there is none."""
    return f"`{value[:12]}`" if value else ""


def share_of(value: bool | float | None) -> str:
    """Return a verdict or a share; empty where it was not measured."""
    if value is None:
        return ""
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.0%}"


def loss_of(losses: Losses | FactsCheck) -> str:
    """Return two losses, before and after, with their unit."""
    return f"{losses.nll_before:.3f} to {losses.nll:.3f} nats a token"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """Return a difference of shares in points."""
    return f"{100 * difference + 0.0:+.1f} points"
