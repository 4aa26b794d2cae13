"""`perdure diff`: two entries side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.names import entry_names
from perdure.cli.options import AsJson, Folder, open_ledger
from perdure.cli.output import NOTHING, counted, emit, interval, percent, print_text, short, table

if TYPE_CHECKING:
    from perdure.ledger import Ledger
    from perdure.workflows.inspect.memory_views import MemoryDiff, RowOfTask
    from perdure.workflows.inspect.score_views import Change, Pair


def diff(
    a: Annotated[str, typer.Argument(metavar="A", autocompletion=entry_names, help="Ref or entry compared with.")],
    b: Annotated[str, typer.Argument(metavar="B", autocompletion=entry_names, help="The other.")],
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show how the second entry differs from the first: tasks, recipe, paired scores, memory, slots.

    Example: perdure diff head~1 head
    """
    from perdure.workflows.inspect import views

    ledger = open_ledger(folder)
    comparison = views.diff(ledger, a, b)
    if as_json:
        return emit(comparison.to_json())
    heads = [f"{ref} {short(entry)}" for ref, entry in ((a, comparison.a), (b, comparison.b))]
    recipe = comparison.recipe
    if None in recipe.get("name", ()):  # one side has no recipe: every setting differs, which is no news
        recipe = {"name": recipe["name"]}
    parts = [
        _changes("task version", ledger.by_shown_name(comparison.tasks), heads, cut=True),
        _changes("recipe", recipe, heads),
    ]
    parts += [
        _scores(ledger.by_shown_name(comparison.scores), heads),
        _changes("slot", comparison.slots, heads, cut=True),
        _memory(comparison.memory, ledger),
    ]
    print_text("\n\n".join(part for part in parts if part))


def _changes(name: str, changed: Mapping[str, tuple[object, object]], heads: list[str], cut: bool = False) -> str:
    def text_of(value: object) -> str:
        return NOTHING if value is None else short(str(value)) if cut else str(value)

    return table([name, *heads], [[key, *map(text_of, pair)] for key, pair in changed.items()]) if changed else ""


def _scores(scores: "Mapping[str, Pair]", heads: list[str]) -> str:
    rows = [[task, percent(pair.a), percent(pair.b), *_change(pair.change)] for task, pair in scores.items()]
    titles = ["score", *heads, "change", "95% interval", "n"]
    return table(titles, rows, right=(1, 2, 3, 4, 5)) if rows else ""


def _change(change: "Change | None") -> list[str]:
    if change is None:
        return [NOTHING] * 3
    return [f"{100 * change.value + 0.0:+.1f}", interval(change), str(change.n)]


def _memory(memory: "MemoryDiff", ledger: "Ledger") -> str:
    def rows_text(rows: "Sequence[RowOfTask]") -> str:
        tasks = Counter(ledger.shown_name(row.task) for row in rows)
        return counted(len(rows), "row") + (f" ({', '.join(f'{t} {n}' for t, n in tasks.items())})" if tasks else "")

    return f"memory: {rows_text(memory.added)} added, {rows_text(memory.removed)} removed, {memory.kept} kept"
