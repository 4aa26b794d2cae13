"""Doubts: data of a task that are valid but probably a mistake."""

from collections.abc import Mapping, Sequence

from perdure.core.rows import Row
from perdure.core.script import narrowed
from perdure.data.columns import LABELLED


def doubts(parts: Mapping[str, Sequence[Row]], format: str) -> list[str]:
    """Return notices for the user about the rows as they were read.

    They are about repeated rows, labels that differ only in case and spaces, and, where labels are the answers, texts with
    several labels.
    """
    rows = [row for part in parts.values() for row in part]
    repeated = sum(len(part) - len({row.hash for row in part}) for part in parts.values())
    notices = [f"{repeated} duplicate {'row' if repeated == 1 else 'rows'} dropped"] if repeated else []
    notices += [f"labels {' and '.join(map(repr, same))} differ only in case or spaces" for same in _alike(rows)]
    if format in LABELLED and (conflicting := _several(rows)):
        what = "1 text has" if len(conflicting) == 1 else f"{len(conflicting)} texts have"
        notices.append(f"{what} several labels, first {conflicting[0].source}")
    return notices


def _alike(rows: Sequence[Row]) -> list[list[str]]:
    """Return groups of labels that differ only in case, spaces and underscores."""
    groups: dict[str, list[str]] = {}
    for label in sorted({row.label for row in rows if row.label is not None}):
        groups.setdefault(" ".join(narrowed(label).replace("_", " ").casefold().split()), []).append(label)
    return [same for same in groups.values() if len(same) > 1]


def _several(rows: Sequence[Row]) -> list[Row]:
    """Return, for each text with several labels, the first row with the second one."""
    first: dict[str, str | None] = {}
    conflicting: dict[str, Row] = {}
    for row in rows:
        if first.setdefault(row.question, row.label) != row.label:
            conflicting.setdefault(row.question, row)
    return list(conflicting.values())
