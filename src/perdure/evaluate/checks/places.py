"""Checks of how an answer begins and ends, and of its whole text."""

import re
from collections.abc import Sequence

from regex import Pattern

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted

_ARTICLES = frozenset({"a", "an", "the"})
SECONDS = 2.0  # limit for a pattern to search one text


def repeat_prompt(answer: str, prompt_to_repeat: str) -> bool:
    """Return whether the answer begins with the request, in whatever case. Deviation: none."""
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_phrase(answer: str, end_phrase: str) -> bool:
    """Return whether the answer ends with a phrase, in whatever case, double quotes around the answer aside. Deviation: none."""
    return answer.strip().strip('"').lower().endswith(end_phrase.lower())


def quotation(answer: str) -> bool:
    """Return whether double quotes stand around the whole answer. Deviation: none."""
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def whole_pattern(answer: str, pattern: Pattern) -> bool:
    """Return whether the whole answer, white space around it aside, matches a regular expression. No kind of IFEval.

    Raises:
        BadInput: The search took longer than `SECONDS`: a pattern such as (a+)+ tries every way to split a text.
    """
    try:
        return pattern.fullmatch(answer.strip(), timeout=SECONDS) is not None
    except TimeoutError:
        raise BadInput(
            f"the pattern {quoted(pattern.pattern)} of check 'text:pattern' did not end within {SECONDS:g} s; write it without "
            "a repetition inside a repetition, such as (a+)+"
        ) from None


def begins(answer: str, options: Sequence[str]) -> bool:
    """Return whether the answer begins with the words of one of the texts, in whatever case, signs and articles aside.

    A text without a word, as a picture, is looked for as it is. No kind of IFEval.
    """
    words, found = _words(answer), {option: _words(option) for option in options}
    return any(
        words[: len(wanted)] == wanted if wanted else answer.lstrip().startswith(option.strip())
        for option, wanted in found.items()
    )


def _words(text: str) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    return [word for word in words if word not in _ARTICLES] or words
