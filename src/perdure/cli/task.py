"""`perdure task`: rename a task, or remove it from those that are replayed, scored and guarded."""

from typing import Annotated

import typer

from perdure.cli.names import task_names
from perdure.cli.options import Above, App, AsJson, Folder, Message, open_workspace
from perdure.cli.output import counted, emit, print_text, short, warn

task = App(no_args_is_help=True, help="Manage the tasks that head knows.\n\nExample: perdure task remove broadband")


@task.callback()
def above(folder: Above = None) -> None:
    """Take the workspace before the command's name too."""


@task.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="TASK", autocompletion=task_names, help="Name of the task.")],
    message: Message = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Take a task and its rows out of what is replayed, scored and guarded from now on, in a new entry.

    What the weights learned of it stays. 'perdure revert TASK' takes a task out of the weights too, where they are its own.

    Example: perdure task remove broadband -m "the product was withdrawn"
    """
    ws = open_workspace(folder)
    removed = ws.task_remove(name, message=message)
    name = ws.ledger.shown_name(removed.task)
    if as_json:
        return emit(removed.to_json())
    if removed.already:
        return print_text(f"task {name} was taken out before, in entry {short(removed.entry)}; nothing is changed")
    print_text(f"removed task {name}: entry {short(removed.entry)}, {counted(removed.rows, 'row')} taken out of memory")
    print_text(f"head knows {', '.join(map(ws.ledger.shown_name, removed.tasks)) or 'no task'}")
    for text in removed.warnings:
        warn(text)


@task.command("rename")
def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", autocompletion=task_names, help="Name or alias of the task.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its alias; its own name removes the alias.")],
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show a task under another name: an alias, which every command takes in the place of the name.

    Ids, stored rows and scores keep the name under which the task was learned, and so does --json ("aliases" in that of status
    and matrix names the others). Commands take that name, too.

    Example: perdure task rename broadband internet
    """
    renamed = open_workspace(folder).task_rename(old, new)
    if as_json:
        return emit(renamed.to_json())
    if renamed.already:
        return print_text(f"task {renamed.task} is shown as {renamed.now} already; nothing is changed")
    if renamed.now == renamed.task:
        return print_text(f"task {renamed.task} is shown under its own name again, and {renamed.before} is free")
    print_text(f"task {renamed.task} is shown as {renamed.now} from now on; no id changed, and both names work")
