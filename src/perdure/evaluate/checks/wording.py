"""Checks of which words, letters and signs an answer has, and how many."""

import re
from collections.abc import Callable, Sequence

Compare = Callable[[int, int], bool]

# A sentence ends at its mark, with closing quotes and brackets after it, where white space or the end of the text follows.
_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]*_]*(?=\s|$))|[。！？।]+[」』”）]*|\n\s*\n")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“*])(?:(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Gen|Col|Capt|Lt|Rev|Hon|vs|etc|cf|al|Inc|Ltd|Co|Corp|No|Fig|approx)"
    r"|[A-Za-z](?:\.[A-Za-z])*)\.$"
)
_NUMBERED = re.compile(r"(?:^|\n)\s*[*_]*\d{1,3}\.$")  # the number of a list item


def has_keywords(answer: str, keywords: Sequence[str]) -> bool:
    """Return whether every keyword occurs, in whatever case, also within a longer word.

    Deviation: a keyword is a text; the published checker reads it as a regular expression.
    """
    folded = answer.lower()
    return all(keyword.lower() in folded for keyword in keywords)


def keyword_frequency(answer: str, keyword: str, frequency: int, relation: Compare) -> bool:
    """Return whether a keyword occurs at least, or less than, so many times, in whatever case, also within a longer word.

    Deviation: as `has_keywords`.
    """
    return relation(answer.lower().count(keyword.lower()), frequency)


def lacks_words(answer: str, forbidden_words: Sequence[str]) -> bool:
    """Return whether none of the words occurs as a whole word, in whatever case.

    Deviation: as `has_keywords`; a word that begins or ends with a sign is found too.
    """
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(answer: str, letter: str, let_frequency: int, let_relation: Compare) -> bool:
    """Return whether a letter occurs at least, or less than, so many times, in whatever case.

    Deviation: a sign such as "!" is counted; the published checker draws a letter at random in its place.
    """
    return let_relation(answer.lower().count(letter), let_frequency)


def no_comma(answer: str) -> bool:
    """Return whether there is no comma. Deviation: none."""
    return "," not in answer


def count_words(answer: str) -> int:
    """Return the number of runs of letters, digits and underscores: "it's" has two. Deviation: none."""
    return len(re.findall(r"\w+", answer))


def number_words(answer: str, num_words: int, relation: Compare) -> bool:
    """Return whether there are at least, or less than, so many words (`count_words`). Deviation: none."""
    return relation(count_words(answer), num_words)


def words_between(answer: str, least: int = 0, most: int | None = None) -> bool:
    """Return whether the number of words between white space is within both limits. No kind of IFEval."""
    words = sum(any(letter.isalnum() for letter in word) for word in answer.split())
    return least <= words and (most is None or words <= most)


def number_sentences(answer: str, num_sentences: int, relation: Compare) -> bool:
    """Return whether there are at least, or less than, so many sentences (`count_sentences`)."""
    return relation(count_sentences(answer), num_sentences)


def count_sentences(answer: str) -> int:
    """Return the number of sentences: texts with a letter or digit up to a mark that ends a sentence, or to a blank line.

    A full stop after a title, an initial, a common abbreviation or the number of a list item ends no sentence.

    Deviation: the published checker splits with NLTK's trained Punkt model, which knows more abbreviations, takes the number
    of a list item for a sentence, and does not end a sentence at a blank line.
    """
    sentences, begin = 0, 0
    for match in _END.finditer(answer):
        before = answer[begin : match.end()].rstrip("\"'”’»)]*_")
        goes_on = _ABBREVIATION.search(before) or _NUMBERED.search(before)
        if match[0].startswith(".") and goes_on and answer[match.end() :].strip():
            continue
        sentences += _has_word(answer[begin : match.end()])
        begin = match.end()
    return sentences + _has_word(answer[begin:])


def _has_word(text: str) -> bool:
    return any(letter.isalnum() for letter in text)
