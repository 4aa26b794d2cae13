"""Doubts: data of a task that are legal and probably not meant."""

from collections.abc import Mapping, Sequence

from perdure.core.rows import Row
from perdure.core.script import narrowed
from perdure.data.columns import LABELLED


def doubts(parts: Mapping[str, Sequence[Row]], format: str) -> list[str]:
    """Return notices for the user about the rows as they were read.

    Repeated rows, labels that are one but for case and spaces, and, where labels are the answers, texts with several.
    """
    rows = [row for part in parts.values() for row in part]
    repeated = sum(len(part) - len({row.hash for row in part}) for part in parts.values())
    notices = [f"{repeated} duplicate {'row' if repeated == 1 else 'rows'} dropped"] if repeated else []
    notices += [f"labels {' and '.join(map(repr, same))} differ only in case or spaces" for same in _alike(rows)]
    if format in LABELLED and (torn := _several(rows)):
        what = "1 text has" if len(torn) == 1 else f"{len(torn)} texts have"
        notices.append(f"{what} several labels, first {torn[0].source}")
    return notices


def _alike(rows: Sequence[Row]) -> list[list[str]]:
    """Return the labels that are the same but for case, spaces and underscores."""
    groups: dict[str, list[str]] = {}
    for label in sorted({row.label for row in rows if row.label is not None}):
        groups.setdefault(" ".join(narrowed(label).replace("_", " ").casefold().split()), []).append(label)
    return [same for same in groups.values() if len(same) > 1]


def _several(rows: Sequence[Row]) -> list[Row]:
    """Return, for each text with several labels, the first row with the second one."""
    first: dict[str, str | None] = {}
    torn: dict[str, Row] = {}
    for row in rows:
        if first.setdefault(row.question, row.label) != row.label:
            torn.setdefault(row.question, row)
    return list(torn.values())
