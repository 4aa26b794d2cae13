"""Thought blocks: the reasoning at the start of a text, and the answer after it."""

import re

_TAGS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning", "seed:think")),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
CLOSING = dict(_TAGS)
"""The tag that closes a thought, by the one that opens it."""

_OPEN = "|".join(map(re.escape, CLOSING))
_OPENED = re.compile(rf"({_OPEN})(\s*)\Z")
_EMPTY = "|".join(rf"{re.escape(begun)}\s*{re.escape(ended)}" for begun, ended in _TAGS)
_CLOSED = re.compile(rf"({_EMPTY})\s*\Z")
_BLOCK = re.compile(rf"\s*({_OPEN})")


def opening(prompt: str) -> re.Match[str] | None:
    """Return the match of an open thought block at the end of a prompt: group 1 is its tag, group 2 the white space after it."""
    return _OPENED.search(prompt)


def empty_block(prompt: str) -> re.Match[str] | None:
    """Return the match of an empty thought block at the end of a prompt."""
    return _CLOSED.search(prompt)


def split(text: str, tag: str | None = None) -> tuple[str | None, str]:
    """Return (thought, answer) of a text that opens with thought blocks; the thought is None where there is none.

    A thought that is never closed has an empty answer.

    Args:
        text: The answer.
        tag: The opening tag directly before the text, if there is one.
    """
    thoughts: list[str] = []
    while True:
        begun = None if tag else _BLOCK.match(text)
        if begun is not None:
            tag, text = begun[1], text[begun.end() :]
        if not tag:
            return ("\n".join(thoughts) if thoughts else None), text
        thought, closed, text = text.partition(CLOSING[tag])
        thoughts.append(thought)
        tag = None
        if not closed:
            return "\n".join(thoughts), ""


def may_open(text: str) -> bool:
    """Return whether a text is an incomplete opening tag, so that the following text decides whether a thought begins."""
    begun = text.lstrip()
    return any(tag != begun and tag.startswith(begun) for tag in CLOSING)


def knows_thoughts(template: str) -> bool:
    """Return whether a chat template writes or reads thought blocks."""
    return any(name in template for name in (*CLOSING, *CLOSING.values(), "reasoning_content", "thinking"))
