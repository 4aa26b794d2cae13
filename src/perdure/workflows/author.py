"""The author of an entry: PERDURE_AUTHOR, else git's configuration."""

import os
import subprocess

from perdure.core.errors import BadInput
from perdure.ledger.records import Signature

VARIABLE = "PERDURE_AUTHOR"
LONGEST = 10_000  # characters of a message
WAIT = 5.0  # seconds for git


def sign(message: str | None = None) -> Signature:
    """Return the author with a message, to be noted with an entry.

    Raises:
        BadInput: The message is empty, too long, or cannot be written as UTF-8.
    """
    return Signature(author(), None if message is None else _checked(message))


def author() -> str | None:
    """Return PERDURE_AUTHOR, else git's `user.name <user.email>`; None where neither is set, or git is missing."""
    named = os.environ.get(VARIABLE, "").strip()
    return _printable(named) if named else _git_author()


def _git_author() -> str | None:
    command = ["git", "config", "--null", "--get-regexp", r"^user\.(name|email)$"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=WAIT, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no git, or one that waits for something
        return None
    pairs = (line.partition("\n") for line in done.stdout.decode("utf-8", "replace").split("\0"))
    values = {key: value.strip() for key, _, value in pairs if value.strip()}  # the last one counts, as in git
    name, email = values.get("user.name"), values.get("user.email")
    return _printable(f"{name} <{email}>" if name and email else name or email or "") or None


def _printable(text: str) -> str:
    """Return a text without what cannot be written as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _checked(message: str) -> str:
    text = message.strip()
    if not text:
        raise BadInput("the message is empty; write what the entry is for, or leave it out")
    if len(text) > LONGEST:
        raise BadInput(f"the message has {len(text):,} characters; at most {LONGEST:,} are stored")
    if _printable(text) != text:
        raise BadInput("the message holds bytes that are no UTF-8; write it in UTF-8")
    return text
