"""Checks of the form of an answer: lists, marks, titles, JSON."""

import json
import re

CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_TICKS = re.compile(r"^```(?:json|Json|JSON)?")


def number_placeholders(answer: str, num_placeholders: int) -> bool:
    """Return whether there are at least so many placeholders in square brackets. Deviation: none."""
    return len(re.findall(r"\[.*?\]", answer)) >= num_placeholders


def number_bullet_lists(answer: str, num_bullets: int) -> bool:
    """Return whether exactly so many lines begin with "-", or with one "*". Deviation: none."""
    return count_bullets(answer) == num_bullets


def count_bullets(answer: str) -> int:
    """Return the number of bullet points."""
    stars = re.findall(r"^\s*\*[^\*].*$", answer, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", answer, re.MULTILINE))


def constrained_response(answer: str) -> bool:
    """Return whether one of the three answers "My answer is yes.", "... no.", "... maybe." occurs. Deviation: none."""
    return any(option in answer for option in CONSTRAINED)


def number_highlighted_sections(answer: str, num_highlights: int) -> bool:
    """Return whether at least so many texts stand in asterisks on one line.

    Deviation: none; a text in double asterisks counts as the published patterns count it, once.
    """
    single = sum(bool(text.strip("*").strip()) for text in re.findall(r"\*[^\n\*]*\*", answer))
    double = sum(bool(text[2:-2].strip()) for text in re.findall(r"\*\*[^\n\*]*\*\*", answer))
    return single + double >= num_highlights


def json_format(answer: str) -> bool:
    """Return whether the whole answer is JSON, with or without markdown ticks. Deviation: none."""
    text = _TICKS.sub("", answer.strip()).removesuffix("```").strip()
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def title(answer: str) -> bool:
    """Return whether a title in double angular brackets, <<...>>, stands on one line. Deviation: none."""
    return any(text.lstrip("<").rstrip(">").strip() for text in re.findall(r"<<[^\n]+>>", answer))
