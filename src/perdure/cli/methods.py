"""`perdure methods`: the ideas against forgetting that a recipe can use."""

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.names import method_names
from perdure.cli.options import AsJson
from perdure.cli.output import NOTHING, emit, facts, print_text, table

if TYPE_CHECKING:
    from perdure.workflows.advise.explanation import MethodCard

WIDTH = 100


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", autocompletion=method_names, help="Explain this method.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods, or explain one: formula, seams, cost, when to use it, fields, source.

    Example: perdure methods ewc
    """
    from perdure.workflows.advise.recipes import method_cards

    cards = method_cards(name)
    if as_json:
        return emit([card.to_json() for card in cards])
    if name is None:
        rows = [[m.name, m.family, ", ".join(m.seams), m.source] for m in cards]
        return print_text(table(["method", "family", "seams", "source"], rows))
    print_text(_card(cards[0]))


def _card(method: "MethodCard") -> str:
    """Return one method explained, as it is read from top to bottom."""
    from perdure.core.seams import SEAMS

    docs, filled = method.says, [SEAMS[name] for name in method.seams]
    seams = {seam.name: seam.purpose + (" (room for one method)" if seam.exclusive else "") for seam in filled}
    sections = [
        f"{head.upper()}\n{_wrapped(docs[head])}" for head in ("when to use", "cost", "state", "needs") if head in docs
    ]
    rows = [[name, f.type, f.range or NOTHING, f.default, f.about] for name, f in method.fields.items()]
    parts = [
        f"{method.name} ({method.family})\n{_wrapped(method.idea, '')}",
        f"FORMULA\n{textwrap.indent(method.formula, '  ')}",
        f"SEAMS\n{textwrap.indent(facts(seams), '  ')}",
        *sections,
        f"FIELDS\n{textwrap.indent(table(['field', 'type', 'range', 'default', 'what it is'], rows), '  ')}",
        f"SOURCE\n{_wrapped(method.source)}",
        *([f"DEVIATION\n{_wrapped(docs['deviation'])}"] if "deviation" in docs else []),
        f"MODULE\n  {method.module}",
    ]
    return "\n\n".join(parts)


def _wrapped(text: str, indent: str = "  ") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)
