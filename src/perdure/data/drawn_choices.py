"""Choices for rows that have none: the right answer, and right answers of other rows with the same label."""

from collections.abc import Sequence
from dataclasses import replace

from perdure.core.errors import BadInput
from perdure.core.keyed import keyed
from perdure.core.rows import Row


def with_drawn_choices(rows: Sequence[Row], count: int) -> tuple[Row, ...]:
    """Return the rows with choices of their own, in an order that tells nothing of which one is right.

    The wrong choices are different answers of rows with the same label (for facts: objects of the same relation), drawn by a key
    that only the row decides. A row whose label has fewer answers gets fewer choices; without a second answer it is left out.

    Args:
        rows: Rows of plain text, each with a label and an answer.
        count: Number of choices, the right one included; at least 2.

    Raises:
        BadInput: A row has no label, or no row has a choice.
    """
    answers: dict[str, set[str]] = {}
    for row in rows:
        if row.label is None:
            raise BadInput(
                f"{row.source or 'a row'} has no label, by which wrong choices are drawn; map a column to it"
            )
        answers.setdefault(row.label, set()).add(row.completion)
    drawn = tuple(_with_choices(row, sorted(answers[row.label or ""]), count) for row in rows)
    kept = tuple(row for row in drawn if len(row.choices) > 1)
    if not kept:
        raise BadInput(
            "no two rows with the same label have different answers, so that there is nothing to choose from"
        )
    return kept


def _with_choices(row: Row, answers: Sequence[str], count: int) -> Row:
    draw = keyed("drawn choices", row.label, row.prompt, row.completion)
    others = [text for text in answers if text != row.completion]
    chosen = [row.completion, *(others[i] for i in draw.permutation(len(others))[: count - 1])]
    choices = tuple(chosen[i] for i in draw.permutation(len(chosen)))
    return replace(row, choices=choices, gold=choices.index(row.completion))
