"""Several labels per row: a column with lists of labels, and one text as the answer with all of them."""

from collections.abc import Iterable, Mapping, Sequence

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted

SEPARATOR = ", "
EMPTY = "none"
"""Label of a row whose list is empty; the task may give it another text, like any label."""


def label_of_set(labels: Sequence[str]) -> str:
    """Return the labels of a row as one label: sorted, so that equal sets are one class."""
    return SEPARATOR.join(sorted(set(labels))) or EMPTY


def answer_of_set(labels: Sequence[str], texts: Mapping[str, str], source: str) -> str:
    """Return the answer that names all labels of a row, in the order of `label_of_set`.

    Args:
        labels: The labels.
        texts: Text of each.
        source: Place of the row, for the error.

    Raises:
        BadInput: A text has a comma, which separates the labels of an answer.
    """
    names = sorted(set(labels)) or [EMPTY]
    if torn := [name for name in names if "," in texts[name]]:
        raise BadInput(
            f"{source}: the label {quoted(torn[0])} holds a comma, which separates the labels of an answer; give it a text "
            "without one (`labels` in a task file)"
        )
    return SEPARATOR.join(texts[name] for name in names)


def names_in_sets(labels: Iterable[str]) -> list[str]:
    """Return the single labels of sets, each once, sorted."""
    return sorted({name for label in labels for name in label.split(SEPARATOR)})
