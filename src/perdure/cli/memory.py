"""`perdure memory`: the rows stored for replay."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.names import task_names
from perdure.cli.options import Above, App, AsJson, At, Folder, Force, open_ledger, open_workspace
from perdure.cli.output import clip, counted, emit, facts, print_json, print_message, print_text, short, table

if TYPE_CHECKING:
    from perdure.ledger import Ledger
    from perdure.ledger.records import DeletedTask
    from perdure.workflows.inspect.memory_views import RememberedRow, RowsKept, StoredRow

memory = App(
    no_args_is_help=True, help="List, delete, prune or export the stored rows.\n\nExample: perdure memory stats"
)
Row = Annotated[
    str | None,
    typer.Argument(metavar="HASH", show_default=False, help="Hash of the row or its beginning; see 'list --all'."),
]


@memory.callback()
def above(folder: Above = None) -> None:
    """Take the workspace before the command's name too."""


@memory.command("list")
def list_rows(
    task: Annotated[str | None, typer.Option(autocompletion=task_names, help="Only this task's rows.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every stored row, of all tasks and entries.")] = False,
    find: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Every stored row that contains TEXT, in upper or lower case."),
    ] = None,
    at: At = "head",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """List the rows in the memory of an entry, or all rows with stored text; 'memory delete' takes any of them.

    Example: perdure memory list --task broadband
    """
    from perdure.workflows.inspect import memory_views

    ledger, wide = open_ledger(folder), every or find is not None
    if wide and at != "head":
        raise typer.BadParameter("--all and --find look at every entry; leave --at out", param_hint="--at")
    stored = memory_views.kept(ledger, find or "") if wide else memory_views.remembered(ledger, at)
    wanted = task and ledger.task_name(task)
    rows_found = [row for row in stored if wanted in (None, row.task)]
    if as_json:
        return emit([row.to_json() for row in rows_found])
    if not rows_found:
        who = "the workspace stores" if wide else f"the memory of {at} has"
        return print_message(
            f"{who} no row" + (f" of task {task}" if task else "") + (f" with {find!r} in it" if find else "")
        )
    heads = ["row", *([] if wide else ["pool"]), "task", "label"]
    rows = [
        [
            short(row.row),
            *([] if wide else [getattr(row, "pool", None) or "-"]),
            ledger.shown_name(row.task) or "-",
            row.label or "-",
            _text(row),
        ]
        for row in rows_found
    ]
    print_text(table([*heads, "text"], rows))


@memory.command()
def stats(at: At = "head", folder: Folder = None, as_json: AsJson = False) -> None:
    """Count the rows in the memory of an entry by task and label, and the rows whose text the workspace stores.

    Example: perdure memory stats
    """
    from perdure.workflows.inspect import memory_views

    ledger = open_ledger(folder)
    counts = memory_views.memory_stats(ledger, at)
    if as_json:
        return emit(counts.to_json())
    pairs = {
        "entry": short(counts.entry),
        "rows": f"{counts.rows:,}",
        "pools": ", ".join(f"{name} {n}" for name, n in counts.pools.items()),
        "text": f"{counts.text_bytes:,} bytes",
        "teacher": f"{counts.column_bytes:,} bytes",
    }
    print_text(facts(pairs))
    if counts.tasks:
        rows = [
            [ledger.shown_name(task), n, len(counts.labels.get(task, {})) or "-"] for task, n in counts.tasks.items()
        ]
        print_text("\n" + table(["task", "rows", "labels"], rows, right=(1, 2)))
    print_text("\n" + stored_lines(counts.kept))


@memory.command()
def prune(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK", autocompletion=task_names, help="Tasks to prune although their own setting stores all rows."
        ),
    ] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Delete the text of every row that no memory and no test part needs; hashes stay. From then on no other text is stored.

    Example: perdure memory prune broadband
    """
    from perdure.workflows.learn.kept_rows import prune as carry_out

    session = open_workspace(folder).session
    result = carry_out(session, tasks or ())
    if as_json:
        return emit(result.to_json())
    print_text(f"the text of {counted(result.rows, 'row')} dropped, {result.bytes:,} bytes; their hashes stay")
    for task in map(session.ledger.shown_name, result.kept):
        print_message(
            f"task {task} stores all its rows, by its task file; 'perdure memory prune {task}' drops them too"
        )


@memory.command()
def delete(
    row: Row = None,
    task: Annotated[
        str | None, typer.Option(autocompletion=task_names, help="Erase every row of this task instead of one row.")
    ] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Erase a row's text for good, from every memory and every task, and name the entries trained on it.

    Weights do not change: what they learned from a row stays. 'perdure revert TASK' takes out the adapter that a task has of its
    own, and with it what that learned.

    Example: perdure memory delete 9c41d07e
    """
    from perdure.workflows import upkeep

    if (row is None) == (task is None):
        raise typer.BadParameter("give the hash of a row, or --task TASK")
    session = open_workspace(folder).session
    if task is not None:
        deleted = upkeep.delete_task_rows(session, task)
        return emit(deleted.to_json()) if as_json else _show_deleted_task(deleted, session.ledger)
    result = upkeep.delete_row(session, str(row))
    if as_json:
        return emit(result.to_json())
    if result.already:
        return print_text(f"row {short(result.row)} was erased before; nothing is changed")
    print_text(f"erased row {short(result.row)} ({counted(result.rows, 'stored copy')})")
    if result.entries:
        print_text("trained on it: " + ", ".join(short(entry) for entry in result.entries))
        print_text(f"its text is gone; what the weights learned from it stays{_way_out(session.ledger, result.row)}")
    if result.tests:
        print_message(
            f"its earlier scores count this test row still: {', '.join(map(session.ledger.shown_name, result.tests))}"
        )


@memory.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL file to write; - writes to stdout.")],
    force: Force = False,
    at: At = "head",
    folder: Folder = None,
) -> None:
    """Write the rows in the memory of an entry as JSONL, in a format that learn reads.

    Example: perdure memory export memory.jsonl
    """
    from perdure.core.outputs import MEMORY, check_output, write_output
    from perdure.workflows.inspect import memory_views

    ledger = open_ledger(folder)
    if str(file) != "-":
        check_output(file, MEMORY, force=force, workspaces=[ledger.root])
    lines = list(memory_views.memory_lines(ledger, at))
    text = "".join(f"{line}\n" for line in lines)
    if str(file) == "-":
        return print_json(text)
    write_output(file, text, MEMORY, force=force, workspaces=[ledger.root])
    print_message(f"{counted(len(lines), 'row')} written to {file}")


def _way_out(ledger: "Ledger", row: str) -> str:
    """Return which tasks can be reverted to take out what was learned from a row; empty where none can."""
    from perdure.core.slots import adapters_of_task
    from perdure.workflows.learn.revert_task import is_separable

    head = ledger.resolve("head")
    slots, tasks = ledger.slots(head), ledger.tasks_trained_on(row)
    ways = {task: f"all that was measured of {task}" for task in ledger.labelled_by(head, tasks)}
    ways |= {task: f"the whole adapter of {task}" for task in tasks if adapters_of_task(slots, task)}
    return "".join(
        f"; 'perdure revert {ledger.shown_name(task)}' takes out {ways[task]}"
        for task in tasks
        if task in ways and is_separable(ledger, head, task)
    )


def _show_deleted_task(deleted: "DeletedTask", ledger: "Ledger") -> None:
    """Print what of a task is gone, and what is left of it in the weights of head."""
    from perdure.core.slots import adapters_of_task
    from perdure.workflows.learn.revert_task import is_separable

    task, others = ledger.shown_name(deleted.task), ", ".join(map(short, deleted.others))
    if deleted.already:
        print_text(f"the rows of task {task} were erased before; nothing is changed")
    else:
        print_text(
            f"erased the text of {counted(deleted.rows, 'row')} of task {task}; such rows are refused from now on"
        )
    if deleted.own:
        measured = not adapters_of_task(deleted.own, deleted.task)  # by a router; its weights may be shared
        way = f"; 'perdure {'task remove' if measured and deleted.others else 'revert'} {task}' takes it out"
        if not (measured or is_separable(ledger, ledger.resolve("head"), deleted.task)):
            way = ", and a revert cannot take it out, since the weights below have it too"
        print_text(f"what was learned from them stays in head, in {', '.join(deleted.own)}{way}")
    if deleted.others:
        print_text(
            f"what was learned from them stays in weights that other tasks go through (entries {others}); 'perdure rollback' "
            "goes back to before these, without all that came after"
        )
    if not deleted.own and not deleted.others:
        print_text("nothing in head's weights was trained on them")
    if older := [entry for entry in deleted.entries if entry not in deleted.others]:
        print_text(f"entries whose weights were trained on them: {', '.join(map(short, older))}")


def stored_lines(kept: "RowsKept") -> str:
    """Return the lines that count the rows stored with their text, by what needs them, and the rows stored by hash."""
    needed, rows = "no learn needs them; 'perdure memory prune' drops them", kept.rows
    rest = "the workspace stores all rows" if kept.setting == "all" else needed
    lines = {
        "with text": f"{counted(rows.memory, 'memory row')}, {counted(rows.test, 'test row')}",
        "": rows.train + rows.validation
        and f"{counted(rows.train, 'train row')}, {counted(rows.validation, 'validation row')}: {rest}",
        "left over": rows.loose and f"{counted(rows.loose, 'row')} of no entry; 'perdure gc' drops them",
        "by hash": f"{counted(rows.names, 'row')}" + (f", and {rows.deleted} deleted" if rows.deleted else ""),
        "stored text": f"{rows.text_bytes:,} bytes",
    }
    return facts({name: value for name, value in lines.items() if value != 0})


def _text(row: "StoredRow | RememberedRow") -> str:
    """Return the text of a row in one line."""
    return clip((" / " if "messages" in row.text else "").join(row.contents), 90)
