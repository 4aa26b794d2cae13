"""Rows with choices of their own: a question with several answers, or several contexts with one ending."""

import string
from collections.abc import Callable, Sequence

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted
from perdure.core.rows import Row
from perdure.data.cells import joined, text_in, text_of
from perdure.data.columns import nested
from perdure.data.read import Record

LETTERED = "choices"
"""Placeholder of a template that stands for the choices as lines "A. text"; the letters are then the answers."""

LETTERS = string.ascii_uppercase


def from_choices(record: Record) -> Row:
    """Return the row of a question with choices.

    Raises:
        BadInput: The choices are no list of texts, or `gold` names none of them; the message has the line.
    """
    return _row(text_in(record, "prompt"), _texts(record, "choices"), record)


def with_prompt(prompt: Callable[[Record], str], *, lettered: bool) -> Callable[[Record], Row]:
    """Return a conversion of questions with choices whose prompt is made by a template.

    Args:
        prompt: Makes the prompt of a record.
        lettered: The prompt names the choices as lines (`LETTERED`), so that the model chooses among letters.
    """

    def convert(record: Record) -> Row:
        choices = _texts(record, "choices")
        if not lettered:
            return _row(prompt(record), choices, record)
        if len(choices) > len(LETTERS):
            raise BadInput(f"{record.source} has {len(choices)} choices, and there are {len(LETTERS)} letters for them")
        letters = LETTERS[: len(choices)]
        lines = "\n".join(f"{letter}. {text.strip()}" for letter, text in zip(letters, choices, strict=True))
        shown = Record({**record.fields, LETTERED: lines}, record.source)
        return _row(prompt(shown), list(letters), record, gold=_gold(record, choices, "choices"))

    return convert


def from_contexts(record: Record) -> Row:
    """Return the row of several contexts with one ending: `choices` is the ending, alone or as a list of one.

    Raises:
        BadInput: The contexts are no list of texts, there is not one ending, or `gold` names no context.
    """
    contexts, ending = _texts(record, "contexts"), record.fields["choices"]
    if isinstance(ending, list | tuple):
        if len(ending) != 1:
            raise BadInput(
                f"{record.source}: choices has {len(ending)} texts for {len(contexts)} contexts; write the one ending that "
                "follows each of them"
            )
        ending = ending[0]
    text = _filled(text_of(ending, "choices", record), "choices", record)
    gold = _gold(record, contexts, "contexts")
    open_ended = [context for context in contexts if not context[-1].isspace()]
    answer = joined(open_ended[0] if open_ended else contexts[0], text)  # the same ending whichever context is right
    return Row(prompt=contexts[gold], completion=answer, choices=(answer,), contexts=tuple(contexts), gold=gold)


def _row(prompt: str, choices: Sequence[str], record: Record, gold: int | None = None) -> Row:
    gold = _gold(record, choices, "choices") if gold is None else gold
    answers = tuple(joined(prompt, text) for text in choices)
    return Row(prompt=prompt, completion=answers[gold], choices=answers, gold=gold)


def _texts(record: Record, column: str) -> list[str]:
    """Return the texts of a list. Two may be equal, as in some items of ARC and MMLU: the first of them is then chosen."""
    values = record.fields[column]
    if not isinstance(values, list | tuple):
        what = nested(values) if isinstance(values, dict) else f"{quoted(values)}"
        raise BadInput(f'{record.source}: {column} is {what}; write a list of texts (in a .jsonl file: ["a", "b"])')
    if len(values) < 2:
        raise BadInput(
            f"{record.source}: {column} has {len(values)} texts, and a choice needs at least 2; add the others"
        )
    return [
        _filled(text_of(value, f"{column}[{i}]", record), f"{column}[{i}]", record) for i, value in enumerate(values)
    ]


def _filled(text: str, what: str, record: Record) -> str:
    if not text.strip():
        raise BadInput(f"{record.source}: {what} is empty; fill it in, or remove it")
    return text


def _gold(record: Record, texts: Sequence[str], column: str) -> int:
    """Return the index of the right text, which `gold` names by its index or by the text itself."""
    value = record.fields["gold"]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # tables store whole numbers as 1.0 when a cell is null
    advice = f"write the index of the right one of {column} as a number from 0 to {len(texts) - 1}, or its text"
    if isinstance(value, str):
        # no digits as an index: "1" is the first answer in some data sets, and the second in others
        same = [i for i, text in enumerate(texts) if text.strip() == value.strip()]
        if len(same) != 1:
            raise BadInput(
                f"{record.source}: gold is {quoted(value)}, which {len(same) or 'none'} of {column} are; {advice}"
            )
        return same[0]
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"{record.source}: gold is {quoted(value)}; {advice}")
    if not 0 <= value < len(texts):
        raise BadInput(f"{record.source}: gold is {value}, and there are {len(texts)} {column}; {advice}")
    return value
