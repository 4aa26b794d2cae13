"""`perdure guard`: abilities that are scored at each learn and never learned."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.names import entry_names, guard_names, shipped_guards
from perdure.cli.options import Above, App, AsJson, Folder, TrustFile, open_workspace
from perdure.cli.output import counted, emit, print_message, print_text, short, table, warn
from perdure.cli.progress import late_progress

if TYPE_CHECKING:
    from perdure.workflows.guards.attach import ListedGuard

guard = App(
    no_args_is_help=True,
    help="Manage abilities that are scored at each learn and never learned.\n\nExample: perdure guard add arithmetic",
)
Name = Annotated[str, typer.Argument(metavar="GUARD", autocompletion=guard_names, help="Name of the guard.")]


@guard.callback()
def above(folder: Above = None) -> None:
    """Take the workspace before the command's name too."""


@guard.command("add")
def add(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE",
            autocompletion=shipped_guards,
            help="A shipped guard, a guard file (YAML), or harness:NAME for a task of lm-evaluation-harness.",
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="Name of the guard; else the one in its file.")] = None,
    learn: Annotated[
        int | None, typer.Option("--learn", min=0, help="Items that each learn scores; 0 leaves them to checkups.")
    ] = None,
    trust_file: TrustFile = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", envvar="PERDURE_DATA", help="Folder of the data files."),
    ] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Score an ability from now on: at each learn, edit and revert, against the base model.

    Nothing is scored yet. The ids of entries do not depend on guards.

    Example: perdure guard add arithmetic
    """
    ws = open_workspace(folder)
    for file in trust_file or ():
        ws.trust(file)
    with late_progress("loading the model") as tick:
        added = ws.guard_add(what, name=name, learn=learn, data=data, tick=tick)
    if (chosen := added.selection) and added.items < chosen.wanted:
        warn(f"{counted(added.items, 'row')} of {chosen.rows:,} can tell something, and {chosen.wanted:,} were wanted")
    if as_json:
        return emit(added.to_json())
    at_learn = counted(added.budgets.learn, "item")
    when = f"{at_learn} at each learn" if added.budgets.learn else "in checkups alone"
    print_text(f"added guard {added.name} ({added.ability}): {counted(added.items, 'item')}, {when}")
    if chosen:
        print_text(
            f"its rows were selected among {chosen.rows:,} by what the base model is unsure of: its score is that of no "
            f"benchmark. Guard {chosen.check} has rows that no selection saw, for checkups"
        )


@guard.command("list")
def list_guards(folder: Folder = None, as_json: AsJson = False) -> None:
    """List the guards of the workspace.

    Example: perdure guard list
    """
    from perdure.workflows.guards.attach import mode_of

    ws = open_workspace(folder)
    found = ws.guards()
    if as_json:
        return emit([one.to_json() for one in found])
    if not found:
        return print_message("no guards; 'perdure guard add NAME' adds one")
    rows = [
        [
            one.name,
            one.ability,
            one.budgets.learn,
            one.items,
            _reference_score(one),
            short(one.reference),
        ]
        for one in found
    ]
    head = ["guard", "ability", "items at a learn", "items", "reference scores", "reference"]
    print_text(table(head, rows, right=(2, 3)).rstrip())
    enforced = mode_of(ws.ledger) == "enforce"
    print_text("a guard that falls refuses the entry" if enforced else "a guard that falls is a warning")


def _reference_score(one: "ListedGuard") -> str:
    if one.score is None:
        return "-"
    words = [word for word, holds in (("blind", one.blind), ("selected rows", one.selection)) if holds]
    return f"{100 * one.score:.1f}%" + (f" ({', '.join(words)})" if words else "")


@guard.command("remove")
def remove(name: Name, folder: Folder = None, as_json: AsJson = False) -> None:
    """Score an ability no longer.

    Example: perdure guard remove arithmetic
    """
    removed = open_workspace(folder).guard_remove(name)
    if as_json:
        return emit(removed.to_json())
    print_text(f"removed guard {removed.name}; 'perdure gc' deletes its rows and scores")


@guard.command("accept")
def accept(
    name: Name,
    at: Annotated[
        str, typer.Option("--at", metavar="REF", autocompletion=entry_names, help="Entry: head, base, an id, or REF~N.")
    ] = "head",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Compare a guard from now on with the model at an entry, where what was lost so far is accepted.

    Example: perdure guard accept instructions
    """
    moved = open_workspace(folder).guard_accept(name, at=at)
    if as_json:
        return emit(moved.to_json())
    print_text(f"guard {name} is compared with entry {short(moved.reference)} from now on")


@guard.command("enforce")
def enforce(folder: Folder = None) -> None:
    """Refuse a learn or an edit after which a guard fell, with exit code 3.

    Example: perdure guard enforce
    """
    open_workspace(folder).guard_mode("enforce")
    print_text("a guard that falls refuses the entry from now on")


@guard.command("warn")
def only_warn(folder: Folder = None) -> None:
    """Only warn of a guard that fell, as a new workspace does.

    Example: perdure guard warn
    """
    open_workspace(folder).guard_mode("warn")
    print_text("a guard that falls is a warning from now on")
