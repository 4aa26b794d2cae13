"""Checks of the parts of an answer: paragraphs, sections, responses, lines."""

import re

_FIRST_WORD = re.compile(r"[^.,?!'\"]*")


def number_paragraphs(answer: str, num_paragraphs: int) -> bool:
    """Return whether there are exactly so many paragraphs between dividers "***", none empty but the outer ones.

    Deviation: none.
    """
    paragraphs = re.split(r"\s?\*\*\*\s?", answer)
    if any(not text.strip() for text in paragraphs[1:-1]):
        return False
    return sum(bool(text.strip()) for text in paragraphs) == num_paragraphs


def nth_paragraph_first_word(answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Return whether there are so many paragraphs between blank lines, and the n-th begins with a word, in whatever case.

    Deviation: none; as there, an empty text between line breaks is not counted, yet has a place in the order.
    """
    paragraphs = answer.split("\n\n")
    counted = sum(bool(text.strip()) for text in paragraphs)
    if not 1 <= nth_paragraph <= counted == num_paragraphs:
        return False
    words = paragraphs[nth_paragraph - 1].split()
    if not words:
        return False
    found = _FIRST_WORD.match(words[0].lstrip("'").lstrip('"'))
    return found is not None and found[0].lower() == first_word.lower()


def multiple_sections(answer: str, section_spliter: str, num_sections: int) -> bool:
    """Return whether at least so many sections begin, each with its word and a number: "Section 2".

    Deviation: the word is a text; the published checker reads it as a regular expression.
    """
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", answer)) >= num_sections


def two_responses(answer: str) -> bool:
    """Return whether two different responses are separated by six asterisks. Deviation: none."""
    responses = [text.strip() for text in answer.split("******")]
    if not all(responses[1:-1]):
        return False
    filled = [text for text in responses if text]
    return len(filled) == 2 and filled[0] != filled[1]


def postscript(answer: str, postscript_marker: str) -> bool:
    """Return whether a postscript occurs: its marker, in whatever case, "P.S." and "P.P.S" with or without spaces.

    Deviation: another marker is a text; the published checker reads it as a regular expression.
    """
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(known.get(postscript_marker) or re.escape(postscript_marker.lower()), answer.lower()))


def lines_between(answer: str, least: int = 0, most: int | None = None) -> bool:
    """Return whether the number of lines that are not empty is within both limits. No kind of IFEval."""
    lines = sum(bool(line.strip()) for line in answer.splitlines())
    return least <= lines and (most is None or lines <= most)
