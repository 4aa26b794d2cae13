"""Words of any script: split at spaces where a script has spaces, else one word per character."""

import re
from functools import cache
from unicodedata import category, normalize

UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u1980-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9df"  # Tai Lue, Tai Tham, Balinese, Javanese
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c"  # Chinese: radicals and signs
    "\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"  # Japanese syllables, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "\ua000-\ua4cf"  # Yi
)
"""Scripts that put no spaces between words, as ranges of a character class."""

_UNSPACED = re.compile(f"[{UNSPACED}]")
_NARROW = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: " "}  # fullwidth forms of ASCII
_JOINERS = "\u200c\u200d"


def has_unspaced(text: str) -> bool:
    """Return whether a text has a letter of a script that puts no spaces between words."""
    return not text.isascii() and bool(_UNSPACED.search(text))


def narrowed(text: str) -> str:
    """Return a text with its accents composed (NFC) and with ASCII characters for their fullwidth forms."""
    return text if text.isascii() else normalize("NFC", text).translate(_NARROW)


def words(text: str) -> list[str]:
    """Return the runs of letters and digits of a text; a letter of a script without spaces is a separate run.

    A mark (an accent, or a vowel sign of an Indic script) belongs to the letter before it.
    """
    if text.isascii():
        return re.findall(r"\w+", text)
    runs: list[str] = []
    before = ""  # kind of the last character: part of a "run", a separate "letter", or one that no mark can follow
    for letter in text:
        if _is_mark(letter):
            if before:
                runs[-1] += letter
            continue
        kind = "" if not (letter.isalnum() or letter == "_") else "letter" if _UNSPACED.match(letter) else "run"
        if kind == "run" == before:
            runs[-1] += letter
        elif kind:
            runs.append(letter)
        before = kind
    return runs


def count_words(text: str) -> int:
    """Return how many words a text has between its spaces; each letter of a script without spaces counts as one."""
    return sum(len(words(piece)) if has_unspaced(piece) else 1 for piece in text.split())


@cache
def _is_mark(letter: str) -> bool:
    return category(letter).startswith("M") or letter in _JOINERS
