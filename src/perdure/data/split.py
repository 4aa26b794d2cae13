"""Parts of a task: those that its files name, and a test part drawn from the rows where they name none."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from perdure.core.errors import BadInput
from perdure.core.keyed import keyed
from perdure.core.plain_text import quoted
from perdure.core.rows import Row
from perdure.data.read import Record

T = TypeVar("T")
_PARTS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")


def part_named(split: object) -> str | None:
    """Return the part that a value of `split` names: "train", "validation" or "test"; None if it names none."""
    return _PARTS.get(split.strip().lower()) if isinstance(split, str) else None


def named_parts(records: Sequence[Record], rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows by the `split` of their records: "train", "validation", "test". Without the column all are train.

    Raises:
        BadInput: `split` has another value, or is missing in some records only.
    """
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    named = any("split" in record.columns for record in records)
    for record, row in zip(records, rows, strict=True):
        split = record.fields.get("split") if named else "train"
        part = part_named(split)
        if part is None:
            raise BadInput(
                f"{record.source}: split is {quoted(split)}; it must be one of {', '.join(_PARTS)}, in every row or in none"
            )
        parts[part].append(row)
    return parts


def distinct(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows in order, each text only at its first place."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.hash, row)
    return tuple(first.values())


def make_test_part(rows: Sequence[Row], share: float, *key: object) -> tuple[list[Row], list[Row]]:
    """Return (train, test) made from `rows`, both in their order.

    Rows with the same question go to the same side. Questions are drawn label by label: `share` of them, rounded, at
    least one and never all, for each label with two or more. A label with a single question stays in train,
    unless every label is such: then the draw ignores labels. Where all rows have one question, the test part is empty.

    Args:
        rows: The rows to divide.
        share: Share of the questions for the test part, in (0, 1).
        key: Key of the draw, which also depends on the order of the rows; see `core.keyed`.
    """
    label_of = {row.question: row.label or "" for row in reversed(rows)}
    questions = list(dict.fromkeys(row.question for row in rows))
    strata: dict[str, list[str]] = {}
    for question in questions:
        strata.setdefault(label_of[question], []).append(question)
    if all(len(stratum) == 1 for stratum in strata.values()):
        strata = {"": questions}
    tested: set[str] = set()
    for label, stratum in strata.items():
        size = min(max(round(share * len(stratum)), 1), len(stratum) - 1)
        picks = keyed(*key, "test part", label).permutation(len(stratum))[:size]
        tested.update(stratum[index] for index in picks)
    return [row for row in rows if row.question not in tested], [row for row in rows if row.question in tested]


def held_out(rows: Sequence[T], share: float, *key: object) -> tuple[list[T], list[T]]:
    """Return (train, validation) drawn from `rows`, both in their order: `share` of them, at least one and never all.

    Args:
        rows: The rows to divide; a single one stays in train.
        share: Share of the rows for validation, in (0, 1).
        key: Key of the draw, which also depends on the number of rows; see `core.keyed`.
    """
    size = min(max(round(share * len(rows)), 1), len(rows) - 1)
    chosen = set(keyed(*key, "validation").permutation(len(rows))[: max(size, 0)].tolist())
    return [row for i, row in enumerate(rows) if i not in chosen], [row for i, row in enumerate(rows) if i in chosen]
