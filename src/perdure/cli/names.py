"""Names that a shell completes, read without torch. A folder that is no workspace, or a damaged one, has none."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from perdure.core.errors import PerdureError

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger

Name = tuple[str, str]  # a name, and what it is
Names = list[Name]


def task_names(ctx: typer.Context) -> Names:
    """Return the tasks that are known at the entry of --at, or at head."""

    def read(ledger: "Ledger") -> Names:
        tasks = ledger.resolve(ctx.params.get("at") or "head").tasks
        return [(ledger.shown_name(task), "task") for task in tasks]

    return _from_ledger(ctx, read)


def entry_names(ctx: typer.Context) -> Names:
    """Return what names an entry: refs, the entries before head, the candidate, and ids."""

    def read(ledger: "Ledger") -> Names:
        line = ledger.ancestors(ledger.resolve("head"))
        named = [(ref, ledger.entry(entry)) for ref, entry in ledger.refs().items()]
        named += [(f"head~{n}", entry) for n, entry in enumerate(line) if n]
        named += [("candidate", entry) for entry in [ledger.candidate()] if entry]
        named += [(entry.id[:12], entry) for entry in reversed(ledger.entries())]
        return [(name, _about(entry)) for name, entry in named]

    return _from_ledger(ctx, read)


def fact_names(ctx: typer.Context) -> Names:
    """Return the ids of the facts that are in force at the entry of --at, or at head."""
    from perdure.workflows.edit.records import listed

    def read(ledger: "Ledger") -> Names:
        facts = listed(ledger, ctx.params.get("at") or "head")
        return [(fact.fact[:12], f"{fact.prompt} {fact.target}") for fact in facts]

    return _from_ledger(ctx, read)


def guard_names(ctx: typer.Context) -> Names:
    """Return the guards of the workspace."""
    return _from_ledger(ctx, lambda ledger: [(one.name, one.ability) for one in ledger.guards()])


def shipped_guards() -> Names:
    """Return the guards that are shipped."""
    from perdure.data.guard_spec import guard_names as names

    return [(name, "guard") for name in names()]


def names_to_revert(ctx: typer.Context) -> Names:
    """Return the tasks and the facts of head."""
    return task_names(ctx) + fact_names(ctx)


def recipes() -> Names:
    """Return the shipped recipes."""
    from perdure.methods.registry import recipe_names

    return [(name, "recipe") for name in recipe_names()]


def method_names() -> Names:
    """Return the methods by the names of their files, since the methods themselves need torch, and those of other packages."""
    from importlib.metadata import entry_points
    from pkgutil import walk_packages

    import perdure.methods
    from perdure.methods.outside import GROUP

    files = walk_packages(perdure.methods.__path__, "perdure.methods.")
    own = [part[-1] for module in files if len(part := module.name.split(".")) == 4]  # perdure.methods.FAMILY.NAME
    return [(name, "method") for name in sorted({*own, *(point.name for point in entry_points(group=GROUP))})]


def suites() -> Names:
    """Return the shipped suites."""
    from perdure.workflows.bench.suite_files import suite_names

    return [(name, "suite") for name in suite_names()]


def formats() -> Names:
    """Return the formats of data, and those of other packages."""
    from importlib.metadata import entry_points

    from perdure.data.columns import FORMATS
    from perdure.data.own_formats import GROUP

    own = [(name, " + ".join(columns)) for name, columns in FORMATS.items()]
    return [*own, *((point.name, point.value) for point in entry_points(group=GROUP))]


def scorers() -> Names:
    """Return the scorers."""
    from perdure.evaluate.scorers import SCORERS

    return [(name, "scorer") for name in SCORERS]


def edit_methods() -> Names:
    """Return the methods of edits."""
    from perdure.editing.spec import METHODS

    return [(name, "method") for name in METHODS if name != "lora"]  # the trained baseline, which no command takes


def devices() -> Names:
    """Return the kinds of devices."""
    return [(name, "device") for name in ("auto", "cpu", "cuda", "mps")]


def dtypes() -> Names:
    """Return the dtypes of frozen weights."""
    return [(name, "dtype") for name in ("auto", "bfloat16", "float16", "float32")]


def _from_ledger(ctx: typer.Context, read: "Callable[[Ledger], Names]") -> Names:
    """Return what `read` finds in the ledger of the workspace that the command names."""
    from perdure.ledger import Ledger

    folder = ctx.params.get("folder") or ctx.obj or Path(os.environ.get("PERDURE_WORKSPACE") or ".")
    try:
        return read(Ledger.open(folder))
    except PerdureError:  # no workspace, or a damaged one: there are no names, and no place for a message
        return []


def _about(entry: "Entry") -> str:
    return f"{entry.kind} {entry.task or ''}".rstrip()
