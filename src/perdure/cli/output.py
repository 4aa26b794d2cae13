"""How commands speak: data on stdout, talk on stderr, tables in plain aligned text."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from perdure.core.plain_text import clipped, visible, visible_json
from perdure.core.words import counted as counted

NOTHING = "-"
LONGEST = 8000  # characters of a message


def emit(value: Any) -> None:
    """Print `value` as JSON on stdout."""
    tell_json(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def tell_json(text: str) -> None:
    """Print JSON, or lines of it, on stdout."""
    typer.echo(encodable(visible_json(text)), nl=False)


def tell(text: str, *, nl: bool = True, **style: Any) -> None:
    """Print text on stdout; what would steer the terminal is shown, for it may come from data or from a model."""
    typer.secho(visible(text), nl=nl, **style)


def encodable(text: str) -> str:
    """Return JSON as it is where stdout's encoding has all of its characters, else with them escaped."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    return text


def say(text: str, **style: Any) -> None:
    """Print a line on stderr."""
    typer.secho(visible(clipped(text, LONGEST)), err=True, **style)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    say(f"warning: {text}", fg=typer.colors.YELLOW)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Return rows under their heads in aligned columns; those in `right` are flush right."""
    lines = [[visible(str(cell)).replace("\n", "\\n").replace("\t", "\\t") for cell in line] for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    edges = ["rjust" if i in right else "ljust" for i in range(len(head))]
    return "\n".join(
        "  ".join(getattr(cell, edge)(width) for cell, edge, width in zip(line, edges, widths, strict=True)).rstrip()
        for line in lines
    )


def facts(pairs: Mapping[str, object]) -> str:
    """Return names and values, a pair a line; what is None or empty is left out."""
    kept = {name: value for name, value in pairs.items() if value not in (None, "", [], {})}
    width = max(map(len, kept), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in kept.items())


def knows_nothing(at: str) -> str:
    """Return what is told where an entry has no task: of head also how to change that."""
    return (
        "head knows no task yet; 'perdure learn TASK DATA' teaches one" if at == "head" else f"no task is known at {at}"
    )


def short(entry: str | None) -> str:
    """Return the digits of an id that people are shown; every command takes them for the whole."""
    return entry[:12] if entry else NOTHING


def clock(time: str | None) -> str:
    """Return an ISO time to the minute: "2026-02-02 09:12"."""
    return time[:16].replace("T", " ") if time else NOTHING


def percent(record: Mapping[str, Any] | None) -> str:
    """Return the score of a Score record in percent."""
    return f"{100 * record['score']:.1f}%" if record else NOTHING


def interval(record: Mapping[str, Any] | None) -> str:
    """Return the 95% interval of a record in points: "[84.6, 89.4]"."""
    return f"[{100 * record['low']:.1f}, {100 * record['high']:.1f}]" if record else NOTHING


def clip(text: str, width: int) -> str:
    """Return a text on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
