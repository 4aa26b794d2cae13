"""How commands print: data on stdout, messages on stderr, tables in plain aligned text."""

import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import typer

from perdure.core.plain_text import clipped, visible, visible_json
from perdure.core.words import counted as counted

if TYPE_CHECKING:
    from perdure.ledger.records import ScoreSummary

NOTHING = "-"
LONGEST = 8000  # characters of a message
INDENT = 2  # columns by which some commands indent a table


def emit(value: Any) -> None:
    """Print `value` as JSON on stdout."""
    print_json(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json(text: str) -> None:
    """Print JSON, or lines of it, on stdout."""
    typer.echo(encodable(visible_json(text)), nl=False)


def print_text(text: str, *, nl: bool = True, **style: Any) -> None:
    """Print text on stdout, with control characters made visible: the text may come from data or from a model."""
    typer.secho(visible(text), nl=nl, **style)


def encodable(text: str) -> str:
    """Return JSON as it is where stdout's encoding has all of its characters, else with them escaped."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    return text


def print_message(text: str, **style: Any) -> None:
    """Print a line on stderr."""
    typer.secho(visible(clipped(text, LONGEST)), err=True, **style)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    print_message(f"warning: {text}", fg=typer.colors.YELLOW)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Return rows under their heads in aligned columns.

    A row is one line, however long, where stdout is no terminal. On a terminal that is too narrow for the table, long cells
    are folded inside their columns.

    Args:
        head: Names of the columns.
        rows: Cells, in the order of `head`.
        right: Indices of the columns that are flush right.
    """
    lines = [[visible(str(cell)).replace("\n", "\\n").replace("\t", "\\t") for cell in line] for line in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    room = shutil.get_terminal_size().columns - INDENT
    if sys.stdout.isatty() and sum(widths) + 2 * (len(widths) - 1) > room:
        return _folded(lines, right, room)
    padded = (
        [
            f"{' ' * (w - _width(c))}{c}" if i in right else f"{c}{' ' * (w - _width(c))}"
            for i, (c, w) in enumerate(cells)
        ]
        for cells in (zip(line, widths, strict=True) for line in lines)
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _width(text: str) -> int:
    """Return the columns that a text takes in a terminal; a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _folded(lines: Sequence[Sequence[str]], right: Sequence[int], width: int) -> str:
    """Return a table of at most `width` columns; its first line holds the heads."""
    from rich.console import Console  # not above: `status` starts without it
    from rich.table import Table
    from rich.text import Text

    folded = Table(box=None, pad_edge=False)
    for i, name in enumerate(lines[0]):
        folded.add_column(Text(name), justify="right" if i in right else "left", overflow="fold")
    for cells in lines[1:]:
        folded.add_row(*map(Text, cells))  # as Text, so that brackets in data are no markup
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(folded)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def facts(pairs: Mapping[str, object]) -> str:
    """Return names and values, a pair a line; what is None or empty is left out."""
    shown = {name: value for name, value in pairs.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown.items())


def knows_nothing(at: str) -> str:
    """Return the message for an entry without tasks. For head it also names the command that changes this."""
    return (
        "head knows no task yet; 'perdure learn TASK DATA' teaches one" if at == "head" else f"no task is known at {at}"
    )


def short(entry: str | None) -> str:
    """Return the digits of an id that people are shown; every command takes them for the whole."""
    return entry[:12] if entry else NOTHING


def clock(time: str | None) -> str:
    """Return an ISO time to the minute: "2026-02-02 09:12"."""
    return time[:16].replace("T", " ") if time else NOTHING


class Bounds(Protocol):
    """Whatever has an interval; None where it has none."""

    @property
    def low(self) -> float | None:
        """Lower end."""

    @property
    def high(self) -> float | None:
        """Upper end."""


def percent(score: "ScoreSummary | None") -> str:
    """Return a score in percent."""
    return f"{100 * score.score:.1f}%" if score else NOTHING


def interval(bounds: Bounds | None) -> str:
    """Return the 95% interval of a record in points: "[84.6, 89.4]"."""
    if bounds is None or bounds.low is None or bounds.high is None:
        return NOTHING
    return f"[{100 * bounds.low:.1f}, {100 * bounds.high:.1f}]"


def clip(text: str, width: int) -> str:
    """Return a text on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
