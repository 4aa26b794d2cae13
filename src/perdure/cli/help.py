"""`perdure help`: short pages on topics, and the help of commands."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.output import print_text
from perdure.core.errors import NotFound

TOPICS = Path(__file__).parent / "topics"


def topics() -> list[str]:
    """Return the names of the topics."""
    return sorted(path.stem for path in TOPICS.glob("*.txt"))


def topic_text(name: str) -> str:
    """Return the page of a topic."""
    return (TOPICS / f"{name}.txt").read_text(encoding="utf-8").rstrip()


def _words(ctx: typer.Context) -> list[str]:
    """Return the words that may come first: topics, and commands."""
    commands = getattr(ctx.find_root().command, "commands", {})
    return list(dict.fromkeys([*topics(), *commands]))


def help_command(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="TOPIC|COMMAND", autocompletion=_words, show_default="the list of topics"),
    ] = None,
) -> None:
    """Print a page on a topic (edits, formats, gate, memory, recipes), or the help of a command.

    Example: perdure help formats
    """
    if not words:
        return print_text(_contents())
    if len(words) == 1 and words[0] in topics():
        return print_text(topic_text(words[0]))
    _show_command(ctx.find_root(), words)


def _contents() -> str:
    titles = {name: topic_text(name).partition("\n")[0] for name in topics()}
    width = max(map(len, titles))
    lines = [f"  perdure help {name.ljust(width)}  {title}" for name, title in titles.items()]
    return "\n".join(
        ["Topics", "", *lines, "", "'perdure help COMMAND' shows a command, 'perdure --help' lists them all."]
    )


def _show_command(root: Any, words: list[str]) -> None:
    """Print the help of the command that the words name.

    Raises:
        NotFound: There is none.
    """
    ctx = root
    for word in words:
        known: dict[str, Any] = getattr(ctx.command, "commands", {})
        if word not in known:
            raise _unknown(word, list(known), ctx is root)
        ctx = type(root)(known[word], info_name=word, parent=ctx)
    if text := ctx.get_help():  # with rich, typer prints it and returns nothing
        print_text(text)


def _unknown(word: str, commands: list[str], top: bool) -> NotFound:
    """Return the error for a word that is no command here, and above all commands no topic."""
    from perdure.core.recipe import nearest  # only here: every command's start imports this file

    if not top:
        return NotFound(f"no command {word!r} among {', '.join(commands)}{nearest(word, commands)}")
    near = nearest(word, list(dict.fromkeys([*topics(), *commands])))  # some words are both
    return NotFound(f"no command {word!r}, and no topic: {', '.join(topics())}{near}")
