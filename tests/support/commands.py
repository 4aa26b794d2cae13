"""Reads `perdure` commands with the real program's parser, and runs nothing."""

import shlex

from typer.main import get_command

from perdure.cli.main import app

COMMANDS = get_command(app)


def fault(command: str) -> Exception | None:
    """Read a command's words as the program does, run nothing, and return what is wrong with them."""
    words = shlex.split(command, comments=True)[1:]
    words = words[: next((n for n, word in enumerate(words) if word in "<>"), None)]
    node = COMMANDS
    while hasattr(node, "commands"):
        name = words.pop(0)
        if name not in node.commands:
            return LookupError(f"no command is called {name}")
        node = node.commands[name]
    try:
        node.make_context(node.name, words)
    except Exception as error:
        return error
    return None


def all_commands() -> dict[str, object]:
    """Return every command, and every group of commands, by its words: "perdure memory list"."""
    found: dict[str, object] = {"perdure": COMMANDS}
    for words in (waiting := ["perdure"]):
        for name, command in getattr(found[words], "commands", {}).items():
            found[f"{words} {name}"] = command
            waiting.append(f"{words} {name}")
    return found
