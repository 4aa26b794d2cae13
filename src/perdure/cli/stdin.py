"""Reading from stdin, which may be closed, no terminal, or no text."""

import sys

from perdure.core.errors import BadInput


def at_terminal() -> bool:
    """Return whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


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
        raise BadInput(f"stdin is not {error.encoding} text ({error.reason}); convert it to UTF-8") from error


def refuse_no_text(text: str) -> None:
    """Refuse bytes of the command line or of stdin that are no text in the terminal's encoding.

    Raises:
        BadInput: There are some.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{text!a} is no text: it has bytes that are not UTF-8") from error
