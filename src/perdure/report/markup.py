"""HTML and SVG as nested calls. All text is escaped by default.

Characters that would reverse or hide the text around them are made visible, as on a terminal.
"""

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from perdure.core.plain_text import visible

VOID = frozenset({"meta", "link", "br", "hr"})


class Html(str):
    """Text that is markup already. Only `el`, `join` and `trusted` make it; every other string is escaped."""

    __slots__ = ()


Child: TypeAlias = "str | int | Iterable[Child] | None"


def el(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """Return one element. `class_` becomes `class`, `stroke_width` becomes `stroke-width`; None and False leave out."""
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    return Html(f"<{opening}>" if name in VOID else f"<{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Return the children one after another: markup as it is, other text escaped, None as nothing."""
    return Html("".join(_child(child) for child in children))


def scrolling(table: Html, label: str) -> Html:
    """Return a table in a box that scrolls where the page is narrow, and that a screen reader finds by `label`."""
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def trusted(text: str) -> Html:
    """Mark our own files (style sheet, script) as markup. Never for anything that came from a record."""
    return Html(text)


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (str, int)):
        return escape(visible(str(child)))
    return join(*child)


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {key}="{escape(visible(text))}"'
