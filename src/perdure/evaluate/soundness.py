"""Whether an answer has the form of an answer: not empty, no loop, in the script of the prompt, in a form that was demanded."""

import json
import re
from collections import Counter
from unicodedata import name

from perdure.core.script import count_words, narrowed, words

GRAM, MOST_TIMES = 4, 3  # words of a repeated run, and how often it may occur
SHARE = 0.2  # of the letters of a text that a script needs, to be one of the scripts of this text
EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH", "BOPOMOFO"})  # which one text mixes

_ASKS_WHAT = re.compile(r"\s*(?:what|why|how|who|when|explain|describe|define|compare)\b", re.IGNORECASE)
_JSON = re.compile(
    r"\b(?:in|as|into|return|output|write|only|using|valid|give)\s+(?:(?:a|an|the|me|only|valid|single|one)\s+)*json\b"
    r"|\bjson\s+(?:object|array|list|format|only)\b",
    re.IGNORECASE,
)
_LIST = re.compile(
    r"\b(?:bullet(?:ed)?|numbered)\s+(?:list|points?)\b|\bbullets\b|\ba\s+list\s+of\b|\b(?:as|make|write|give)\s+a\s+list\b"
    r"|(?:^|[.!?:]\s+|\bplease\s+)list\s",
    re.IGNORECASE,
)
_ONE_WORD = re.compile(
    r"\b(?:in|with|as|only|use|exactly)\s+(?:just\s+|only\s+|exactly\s+)?(?:one|a\s+single)\s+word\b", re.IGNORECASE
)
_FENCE = re.compile(r"\A```\w*\n(.*?)(?:\n?```)?\s*\Z", re.DOTALL)
_ITEM = re.compile(r"^\s*(?:[-*\u2022\u2013]|\d+[.)])\s+\S", re.MULTILINE)


def sound(prompt: str, answer: str, *, ended: bool = True, reference: str = "") -> bool:
    """Return whether an answer has the form of an answer, right or wrong.

    It is not empty. No run of four words occurs more than three times. At least half of its letters are of a script of the
    prompt or of the reference, so that a translation may change the script. Where the prompt demands JSON, a list or one word
    (in English), it has that form.

    Args:
        prompt: The question.
        answer: The answer.
        ended: Whether the answer ended by itself. One that was cut needs only the beginning of JSON.
        reference: The answer that a reference gave, which may be in another script than the prompt.
    """
    if not answer.strip() or _repeats(answer):
        return False
    wanted = _scripts(prompt) | _scripts(reference)
    letters = _letters(answer)
    in_script = sum(count for script, count in letters.items() if script in wanted)
    if wanted and 2 * in_script < letters.total():
        return False
    return _has_form(prompt, answer.strip(), ended)


def _repeats(answer: str) -> bool:
    """Return whether a run of four words occurs more than three times; without a word, signs count as words."""
    units = words(narrowed(answer).lower()) or [sign for sign in answer if not sign.isspace()]
    grams = Counter(zip(*(units[start:] for start in range(GRAM)), strict=False))
    return bool(grams) and max(grams.values()) > MOST_TIMES


def _letters(text: str) -> Counter[str]:
    """Return the number of letters of a text by script."""
    found: Counter[str] = Counter()
    for letter, count in Counter(narrowed(text)).items():
        if letter.isalpha():
            script = "LATIN" if letter.isascii() else name(letter, "UNKNOWN").split()[0]
            found["CJK" if script in EAST_ASIAN else script] += count
    return found


def _scripts(text: str) -> set[str]:
    letters = _letters(text)
    return {script for script, count in letters.items() if count >= SHARE * letters.total()}


def _has_form(prompt: str, answer: str, ended: bool) -> bool:
    """Return whether an answer has the form that its prompt demands; a question about a form demands none."""
    if _ASKS_WHAT.match(prompt):
        return True
    if _JSON.search(prompt):
        return _is_json(answer, ended)
    if _LIST.search(prompt):
        return (
            bool(_ITEM.search(answer))
            or len(answer.splitlines()) > 1
            or any(sign in answer for sign in ",;\u3001\uff0c")
        )
    return not _ONE_WORD.search(prompt) or count_words(answer) == 1


def _is_json(answer: str, ended: bool) -> bool:
    fenced = _FENCE.match(answer)
    text = (fenced[1] if fenced else answer).strip()
    if not text.startswith(("{", "[")):
        return False
    if not ended:
        return True
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
