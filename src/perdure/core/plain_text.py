"""Text from data and files, made safe and short for messages: it cannot control the terminal."""

import re
import reprlib
from typing import Any

# C0 but for line feed and tab, DEL, C1, line and paragraph separators, what embeds, overrides or isolates the direction of text
# (the marks that right-to-left texts need are left alone), invisible marks of formatting, halves of surrogate pairs
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")
QUOTED = 120  # characters of a value that an error quotes


def visible(text: str) -> str:
    r"""Return `text` with each control character, which steers a terminal, written as "\x1b", "\u202e" and the like."""
    return _STEERING.sub(lambda match: _escape(ord(match[0])), text)


def visible_json(text: str) -> str:
    """Return an equal JSON text without control characters: these characters appear only in its strings."""
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def quoted(value: Any, most: int = QUOTED) -> str:
    """Return `repr(value)` for an error: on one line, about `most` characters at most, however large and nested the value is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = most
    short.maxlevel, short.maxlist, short.maxtuple, short.maxdict, short.maxlong = 3, 8, 8, 8, 40
    try:
        text = short.repr(value)
    except ValueError:  # a number with more digits than Python writes out
        text = f"a {type(value).__name__}"
    return visible(clipped(text, 2 * most))


def clipped(text: str, most: int) -> str:
    """Return `text`, cut to `most` characters with a mark where it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
