"""Checks of capital and small letters."""

import re
from collections.abc import Callable

from perdure.evaluate.checks.language import is_english

# What a treebank tokenizer makes tokens of their own: quotes, brackets, most signs, and the second part of a contraction.
_SPLIT = re.compile(r"[«»“”‘’„`\"?!*;@#$%&\[\](){}<>\u2012-\u2015]|\.{2,}|--|''")
_CONTRACTED = re.compile(r"(?<=[^'\s])('(?:[sSmMdD]|ll|LL|re|RE|ve|VE)?|n't|N'T)(?=\s|$)")
_QUOTE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)


def english_capital(answer: str) -> bool:
    """Return whether the answer is English and has capital letters alone.

    Deviation: `is_english` decides, whatever the case; the published checker asks langdetect, which takes some texts in
        capitals for another language.
    """
    return answer.isupper() and is_english(answer)


def english_lowercase(answer: str) -> bool:
    """Return whether the answer is English and has no capital letter.

    Deviation: as `english_capital`.
    """
    return answer.islower() and is_english(answer)


def capital_word_frequency(answer: str, capital_frequency: int, capital_relation: Callable[[int, int], bool]) -> bool:
    """Return whether words in capital letters occur at least, or less than, so many times; "I" and "A" are such words.

    Deviation: words are those of a treebank tokenizer ("DON'T" has two) by rules of ours, not NLTK's `word_tokenize`.
    """
    return capital_relation(sum(word.isupper() for word in treebank_words(answer)), capital_frequency)


def treebank_words(text: str) -> list[str]:
    """Return the words and signs of a text about as the Penn Treebank splits them: DO N'T, NASA 's, COVID-19, U.S.A."""
    text = _SPLIT.sub(r" \g<0> ", text)
    text = re.sub(r"([:,])(?!\d)", r" \1 ", text)
    text = _QUOTE.sub(" ' ", text)
    return _CONTRACTED.sub(r" \1", text).split()
