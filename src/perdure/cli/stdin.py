"""Reading from stdin, which may be closed, no terminal, or no text."""

import select
import sys
from contextlib import suppress

from perdure.cli.output import print_message
from perdure.core.errors import BadInput


def at_terminal() -> bool:
    """Return whether a user can answer questions: stdin is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_line(prompt: str) -> str | None:
    """Return the next line of stdin, None at its end. At a terminal a prompt is printed first.

    Raises:
        BadInput: It is no text.
    """
    if sys.stdin is None:
        return None
    try:
        if at_terminal() and _typed_ahead():  # readline would lose a Ctrl-D that was typed before it reads
            print_message(prompt, nl=False)
            return sys.stdin.readline() or None
        if at_terminal() and sys.stdout.isatty():
            with suppress(ImportError):
                import readline  # noqa: F401 (from here on, input() has a history and is edited with the arrow keys)
            return input(prompt)
        if at_terminal():  # the answers go to a file, where no prompt belongs
            print_message(prompt, nl=False)
        return sys.stdin.readline() or None
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise _no_text(error) from error


def _typed_ahead() -> bool:
    """Return whether a whole line, or Ctrl-D, was typed at the terminal before anything reads it."""
    with suppress(
        OSError, TypeError, ValueError
    ):  # a system whose terminals cannot be asked, or a stream that is no file
        return bool(select.select([sys.stdin], [], [], 0)[0])
    return False


def read_stdin() -> str:
    """Return what stdin holds; nothing where it is closed.

    Raises:
        BadInput: It is no text.
    """
    if sys.stdin is None:
        return ""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise _no_text(error) from error


def _no_text(error: UnicodeDecodeError) -> BadInput:
    return BadInput(f"stdin is not {error.encoding} text ({error.reason}); convert it to UTF-8")


def refuse_no_text(text: str) -> None:
    """Refuse bytes of the command line or of stdin that are no text in the terminal's encoding.

    Raises:
        BadInput: There are some.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{text!a} is no text: it has bytes that are not UTF-8") from error
