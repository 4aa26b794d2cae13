"""`perdure memory`: the rows stored for replay."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.options import Above, App, AsJson, At, Folder, Force, open_ledger, open_workspace
from perdure.cli.output import clip, counted, emit, facts, print_json, print_message, print_text, short, table

memory = App(no_args_is_help=True, help="List, delete, prune or export the stored rows.")
Row = Annotated[str, typer.Argument(metavar="HASH", help="Hash of the row or its beginning; see 'list --all'.")]


@memory.callback()
def above(folder: Above = None) -> None:
    """Take the workspace before the command's name too."""


@memory.command("list")
def list_rows(
    task: Annotated[str | None, typer.Option(help="Only this task's rows.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every stored row, of all tasks and entries.")] = False,
    find: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Every stored row that contains TEXT, in upper or lower case."),
    ] = None,
    at: At = "head",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """List the rows in the memory of an entry, or all rows with stored text; 'memory delete' takes any of them."""
    from perdure.workflows.inspect import memory_views

    ledger, wide = open_ledger(folder), every or find is not None
    if wide and at != "head":
        raise typer.BadParameter("--all and --find look at every entry; leave --at out", param_hint="--at")
    found = memory_views.kept(ledger, find or "") if wide else memory_views.remembered(ledger, at)
    found = [row for row in found if task in (None, row["task"])]
    if as_json:
        return emit(found)
    if not found:
        who = "the workspace keeps" if wide else f"{at} remembers"
        return print_message(
            f"{who} no row" + (f" of task {task}" if task else "") + (f" with {find!r} in it" if find else "")
        )
    heads = ["row", *([] if wide else ["pool"]), "task", "label"]
    rows = [[short(r["row"]), *(r[head] or "-" for head in heads[1:]), _text(r)] for r in found]
    print_text(table([*heads, "text"], rows))


@memory.command()
def stats(at: At = "head", folder: Folder = None, as_json: AsJson = False) -> None:
    """Count the rows in the memory of an entry by task and label, and the rows whose text the workspace stores."""
    from perdure.workflows.inspect import memory_views

    found = memory_views.memory_stats(open_ledger(folder), at)
    if as_json:
        return emit(found)
    pairs = {
        "entry": short(found["entry"]),
        "rows": f"{found['rows']:,}",
        "pools": ", ".join(f"{name} {n}" for name, n in found["pools"].items()),
        "text": f"{found['text_bytes']:,} bytes",
        "teacher": f"{found['column_bytes']:,} bytes",
    }
    print_text(facts(pairs))
    if found["tasks"]:
        rows = [[task, n, len(found["labels"].get(task, {})) or "-"] for task, n in found["tasks"].items()]
        print_text("\n" + table(["task", "rows", "labels"], rows, right=(1, 2)))
    print_text("\n" + kept_lines(found["kept"]))


@memory.command()
def prune(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK]...", help="Tasks to prune although their own setting stores all rows."),
    ] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Delete the text of every row that no memory and no test part needs; hashes stay. From then on no other text is stored."""
    from perdure.workflows.learn.kept_rows import prune as carry_out

    found = carry_out(open_workspace(folder).session, tasks or ())
    if as_json:
        return emit(found.to_json())
    print_text(f"the text of {counted(found.rows, 'row')} dropped, {found.bytes:,} bytes; their hashes stay")
    for task in found.kept:
        print_message(
            f"task {task} keeps all its rows, as its task file says; 'perdure memory prune {task}' drops them too"
        )


@memory.command()
def delete(row: Row, folder: Folder = None, as_json: AsJson = False) -> None:
    """Erase a row's text for good, from every memory and every task, and name the entries trained on it."""
    from perdure.workflows import upkeep

    found = upkeep.delete_row(open_workspace(folder).session, row)
    if as_json:
        return emit(found.to_json())
    if found.already:
        return print_text(f"row {short(found.row)} was erased before; nothing is changed")
    print_text(f"erased row {short(found.row)} ({counted(found.rows, 'kept copy')})")
    if found.entries:
        print_text("trained on it: " + ", ".join(short(entry) for entry in found.entries))
    if found.tests:
        print_message(f"its earlier scores count this test row still: {', '.join(found.tests)}")


@memory.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL file to write; - writes to stdout.")],
    force: Force = False,
    at: At = "head",
    folder: Folder = None,
) -> None:
    """Write the rows in the memory of an entry as JSONL, in a format that learn reads."""
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


def kept_lines(kept: dict) -> str:
    """Return in words which rows a workspace stores with their text, by what needs them, and which by hash."""
    rest = (
        "all rows are to be kept"
        if kept["setting"] == "all"
        else "no learn needs them; 'perdure memory prune' drops them"
    )
    lines = {
        "with text": f"{counted(kept['memory'], 'memory row')}, {counted(kept['test'], 'test row')}",
        "": kept["train"] + kept["validation"]
        and f"{counted(kept['train'], 'train row')}, {counted(kept['validation'], 'validation row')}: {rest}",
        "left over": kept["loose"] and f"{counted(kept['loose'], 'row')} of no entry; 'perdure gc' drops them",
        "by hash": f"{counted(kept['names'], 'row')}" + (f", and {kept['deleted']} deleted" if kept["deleted"] else ""),
        "kept text": f"{kept['text_bytes']:,} bytes",
    }
    return facts({name: value for name, value in lines.items() if value != 0})


def _text(row: dict) -> str:
    if "messages" in row:
        return clip(" / ".join(m["content"] for m in row["messages"]), 90)
    return clip(row["prompt"] + row["completion"], 90)
