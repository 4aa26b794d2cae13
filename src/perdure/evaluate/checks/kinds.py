"""The kinds of checks by name, with their arguments, and the verdict on an answer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted
from perdure.core.rows import Check
from perdure.evaluate.checks import arguments, case, layout, parts, places, wording
from perdure.evaluate.checks.arguments import count, letter, pattern, relation, text, texts
from perdure.evaluate.checks.language import in_language


@dataclass(frozen=True)
class Kind:
    """One kind of check.

    Args:
        holds: Returns whether an answer that is not empty has the property, given the arguments by name.
        arguments: Returns the checked value of each argument, by name; every one is needed unless it is in `optional`.
        optional: Names of arguments that may be left out.
    """

    holds: Callable[..., bool]
    arguments: Mapping[str, Callable[[object], Any]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "keywords:existence": Kind(wording.has_keywords, {"keywords": texts}),
    "keywords:frequency": Kind(wording.keyword_frequency, {"keyword": text, "frequency": count, "relation": relation}),
    "keywords:forbidden_words": Kind(wording.lacks_words, {"forbidden_words": texts}),
    "keywords:letter_frequency": Kind(
        wording.letter_frequency, {"letter": letter, "let_frequency": count, "let_relation": relation}
    ),
    "language:response_language": Kind(in_language, {"language": arguments.language}),
    "length_constraints:number_words": Kind(wording.number_words, {"num_words": count, "relation": relation}),
    "length_constraints:number_sentences": Kind(
        wording.number_sentences, {"num_sentences": count, "relation": relation}
    ),
    "length_constraints:number_paragraphs": Kind(parts.number_paragraphs, {"num_paragraphs": count}),
    "length_constraints:nth_paragraph_first_word": Kind(
        parts.nth_paragraph_first_word, {"num_paragraphs": count, "nth_paragraph": count, "first_word": text}
    ),
    "detectable_content:number_placeholders": Kind(layout.number_placeholders, {"num_placeholders": count}),
    "detectable_content:postscript": Kind(parts.postscript, {"postscript_marker": text}),
    "detectable_format:number_bullet_lists": Kind(layout.number_bullet_lists, {"num_bullets": count}),
    "detectable_format:constrained_response": Kind(layout.constrained_response),
    "detectable_format:number_highlighted_sections": Kind(
        layout.number_highlighted_sections, {"num_highlights": count}
    ),
    "detectable_format:multiple_sections": Kind(
        parts.multiple_sections, {"section_spliter": text, "num_sections": count}
    ),
    "detectable_format:json_format": Kind(layout.json_format),
    "detectable_format:title": Kind(layout.title),
    "combination:two_responses": Kind(parts.two_responses),
    "combination:repeat_prompt": Kind(places.repeat_prompt, {"prompt_to_repeat": text}),
    "startend:end_checker": Kind(places.end_phrase, {"end_phrase": text}),
    "startend:quotation": Kind(places.quotation),
    "change_case:capital_word_frequency": Kind(
        case.capital_word_frequency, {"capital_frequency": count, "capital_relation": relation}
    ),
    "change_case:english_capital": Kind(case.english_capital),
    "change_case:english_lowercase": Kind(case.english_lowercase),
    "punctuation:no_comma": Kind(wording.no_comma),
    "text:begins": Kind(places.begins, {"options": texts}),
    "text:pattern": Kind(places.whole_pattern, {"pattern": pattern}),
    "text:words": Kind(wording.words_between, {"least": count, "most": count}, optional=("least", "most")),
    "text:lines": Kind(parts.lines_between, {"least": count, "most": count}, optional=("least", "most")),
}
"""Kinds of checks by name: the 25 of IFEval under their published names, and `text:` ones of our own."""


def follows(check: Check, answer: str, *, loose: bool = False) -> bool:
    """Return whether an answer follows an instruction. An answer without a letter, digit or sign follows none.

    Args:
        check: The kind of instruction and its arguments.
        answer: The answer of a model, without thoughts.
        loose: Whether the answer may also follow the instruction once its asterisks, its first line, its last line, or
            several of these are left out (an opening such as "Sure, here it is:").

    Raises:
        BadInput: No kind is named so, or an argument is missing, unknown, or of the wrong sort.

    Source: Zhou et al. 2023, section 2.3 (strict and loose accuracy).
    Deviation: none; each kind states its own.
    """
    kind, given = _read(check)
    return any(kind.holds(text, **given) for text in (_variants(answer) if loose else (answer,)) if text.strip())


def refuse_wrong(check: Check) -> None:
    """Refuse a check that cannot be decided.

    Raises:
        BadInput: No kind is named so, or an argument is missing, unknown, or of the wrong sort.
    """
    _read(check)


def _variants(answer: str) -> Iterator[str]:
    """Return the texts of which one must follow the instruction, where verdicts are loose."""
    lines = answer.split("\n")
    cut = [answer, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))]
    yield from cut
    yield from (text.replace("*", "") for text in cut)


def _read(check: Check) -> tuple[Kind, dict[str, Any]]:
    """Return the kind of a check and its arguments, checked."""
    kind = KINDS.get(check.kind)
    if kind is None:
        near = get_close_matches(check.kind, KINDS, n=1)
        raise BadInput(
            f"unknown kind of check {quoted(check.kind)}"
            + (f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(KINDS)}")
        )
    given = {name: value for name, value in check.given.items() if value is not None}
    takes = f"it takes {', '.join(kind.arguments) or 'none'}"
    if unknown := sorted(given.keys() - kind.arguments.keys()):
        raise BadInput(f"check {check.kind!r} has no argument {quoted(unknown[0])}; {takes}")
    if missing := [name for name in kind.arguments if name not in given and name not in kind.optional]:
        raise BadInput(f"check {check.kind!r} needs the argument {missing[0]!r}; {takes}")
    if kind.optional and not given:
        raise BadInput(f"check {check.kind!r} needs one of its arguments; {takes}")
    read: dict[str, Any] = {}
    for name, value in given.items():
        try:
            read[name] = kind.arguments[name](value)
        except ValueError as error:
            raise BadInput(f"argument {name!r} of check {check.kind!r} {error}, got {quoted(value)}") from None
    return kind, read
