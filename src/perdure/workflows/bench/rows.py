"""The rows of a suite's tasks: which ones, drawn by a seed."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.data.read import read_records
from perdure.workflows.bench.suite import Part, Source

DIGITS = Path("scikit-learn/digits")  # shipped with that package
RowFields = dict[str, Any]


def rows_of(
    source: Source,
    folder: Path,
    seed: int,
    narrow: Callable[[Sequence[RowFields], str], Sequence[RowFields]] | None = None,
) -> list[RowFields]:
    """Return the rows as fields of a data file: the train rows, then the test rows, each marked so in `split`.

    Args:
        source: Which rows.
        folder: Folder of the data files.
        seed: Of the draw.
        narrow: Returns the rows that may be drawn, of those that belong to a part ("train" or "test"); all where it is None.

    Raises:
        BadInput: The file is missing or broken, or a part has no rows.
    """
    records = _digits() if source.file == DIGITS else [record.fields for record in read_records(folder / source.file)]
    rows: list[RowFields] = []
    for name in ("train", "test"):
        part: Part | None = getattr(source, name, None)
        if part is None:
            continue
        mine = [r for r in records if r.get("split") == part.split and source.where.items() <= r.items()]
        if narrow:
            mine = list(narrow(mine, name))
        chosen = choose(mine, seed, part, _labels(mine, source.labels))
        if not chosen:
            raise BadInput(
                f"{getattr(source, 'name', 'general')}: {source.file} has no rows for its {name} part (split "
                f"{part.split!r}, {source.where}, skip {part.skip}); its splits are "
                f"{sorted({str(r.get('split')) for r in records})}"
            )
        rows += [{**(_chat(row, source.file) if source.chat else row), "split": name} for row in chosen]
    return rows


def choose(rows: Sequence[RowFields], seed: int, part: Part, labels: Iterable[str | None]) -> list[RowFields]:
    """Return the rows of `part` of each of the `labels`, drawn by the seed from the rows in their order.

    The draw is that of a plain script (`random.Random(seed).shuffle`, anew for each label), so that one can be given
    the same rows. The same seed takes the same first rows, however many are wanted.
    """
    chosen: list[RowFields] = []
    for label in labels:
        found = [row for row in rows if row.get("label") == label]
        random.Random(seed).shuffle(found)  # noqa: S311, a draw of rows, and one that others can repeat
        chosen += found[part.skip :][: part.per_label]
    return chosen


def _chat(row: RowFields, file: Path) -> RowFields:
    """Return a row of prompt and completion as a chat of two turns."""
    if not all(isinstance(row.get(key), str) for key in ("prompt", "completion")):
        raise BadInput(
            f"{file}: `chat` is for rows with a text prompt and completion; one has {', '.join(sorted(row))}"
        )
    turns = [{"role": role, "content": row[key]} for role, key in (("user", "prompt"), ("assistant", "completion"))]
    return {**{key: value for key, value in row.items() if key not in ("prompt", "completion")}, "messages": turns}


def _labels(rows: Sequence[Mapping[str, Any]], wanted: int | list[str] | None) -> list[str | None]:
    """Return the labels to take, by name; [None] where the rows have none."""
    if isinstance(wanted, list):
        return list(wanted)
    known = sorted({row["label"] for row in rows if row.get("label") is not None})
    without = wanted is None and any(row.get("label") is None for row in rows)
    return [*known[:wanted], *([None] if without else [])] or [None]


def _digits() -> list[RowFields]:
    """Return the 1,797 digits, pixels from 0 to 1; the fourth of every four of a class is test, the others train."""
    from sklearn.datasets import load_digits

    found, seen, rows = load_digits(), Counter[int](), []
    for pixels, label in zip((found.data / 16).tolist(), found.target.tolist(), strict=True):
        seen[label] += 1
        rows.append({"features": pixels, "label": str(label), "split": "train" if seen[label] % 4 else "test"})
    return rows
