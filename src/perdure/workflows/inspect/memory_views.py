"""What is remembered, as plain JSON and as rows to learn from again. Nothing here loads a model or torch."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.core.records import JsonObject, Record
from perdure.core.rows import Row
from perdure.ledger.records import KeptRows, MemoryItem, RowCounts

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger

Json = dict[str, Any]


@dataclass(frozen=True)
class RowsKept(Record):
    """Which rows a workspace keeps.

    Args:
        setting: Which rows are kept with their text: "all" or "needed".
        rows: How many are kept, by place.
    """

    setting: str
    rows: KeptRows

    def to_json(self) -> JsonObject:
        """Return the setting and the numbers in one object."""
        return {"setting": self.setting, **self.rows.to_json()}


@dataclass(frozen=True)
class RowOfTask(Record):
    """A row, by its hash, and the task that it is of."""

    row: str
    task: str


@dataclass(frozen=True)
class MemoryDiff(Record):
    """How what one entry remembers differs from what another does.

    Args:
        added: Rows that the second has and the first lacks.
        removed: Rows that the first has and the second lacks.
        kept: How many both have.
    """

    added: tuple[RowOfTask, ...]
    removed: tuple[RowOfTask, ...]
    kept: int


def remembered(ledger: "Ledger", at: str = "head") -> list[Json]:
    """Return the rows of an entry's memory: "row" (its hash), where it belongs, and its text.

    Raises:
        NotFound: The ref is not known.
    """
    return [{"row": row.hash, **_kept(item), **_text(row)} for item, row in _items(ledger, ledger.resolve(at))]


def kept(ledger: "Ledger", text: str = "") -> list[Json]:
    """Return every row whose text is kept and has `text` in it, of whatever case: "row" (its hash), task, label, its text."""
    wanted = text.casefold()
    found = [{"row": row.hash, "task": row.task, "label": row.label, **_text(row)} for row in ledger.kept_rows()]
    return [row for row in found if wanted in _whole(row).casefold()]


def memory_stats(ledger: "Ledger", at: str = "head") -> Json:
    """Return how many rows an entry remembers, by pool, task and label, and the bytes of text and of teacher columns.

    Raises:
        NotFound: The ref is not known.
    """
    entry = ledger.resolve(at)
    items = _items(ledger, entry)
    labels: dict[str, Counter[str]] = {}
    for _, row in items:
        labels.setdefault(row.task, Counter())[row.label or ""] += 1
    return {
        "entry": entry.id,
        "rows": len(items),
        "text_bytes": sum(len(json.dumps(_text(row), ensure_ascii=False).encode()) for _, row in items),
        "column_bytes": ledger.objects.size(entry.columns) if entry.columns else 0,
        "pools": dict(Counter(item.pool for item, _ in items)),
        "tasks": {task: sum(counts.values()) for task, counts in labels.items()},
        "labels": {task: dict(sorted(counts.items())) for task, counts in labels.items() if set(counts) != {""}},
        "kept": rows_kept(ledger).to_json(),
    }


def rows_kept(ledger: "Ledger") -> RowsKept:
    """Return which rows the whole workspace keeps."""
    return RowsKept(ledger.keep_rows, ledger.count_rows())


def memory_lines(ledger: "Ledger", at: str = "head") -> Iterator[str]:
    """Yield an entry's memory as JSON lines that `perdure learn` can read: the text, its label, task and pool.

    Raises:
        NotFound: The ref is not known.
    """
    for item, row in _items(ledger, ledger.resolve(at)):
        about = {"label": row.label, "task": row.task, "pool": item.pool}
        yield json.dumps({**_text(row), **{k: v for k, v in about.items() if v is not None}}, ensure_ascii=False)


def memory_diff(ledger: "Ledger", a: "Entry", b: "Entry") -> MemoryDiff:
    """Return the rows that the memory of b has beside that of a, those it lacks, and how many both have."""
    old, new = ({row.hash: row.task for _, row in _items(ledger, entry)} for entry in (a, b))
    added = tuple(RowOfTask(name, task) for name, task in new.items() if name not in old)
    removed = tuple(RowOfTask(name, task) for name, task in old.items() if name not in new)
    return MemoryDiff(added, removed, len(old.keys() & new.keys()))


def held(ledger: "Ledger", entry: "Entry") -> RowCounts:
    """Return how many rows an entry remembers, in all and by task."""
    items = _items(ledger, entry)
    return RowCounts(len(items), dict(Counter(row.task for _, row in items)))


def _items(ledger: "Ledger", entry: "Entry") -> list[tuple[MemoryItem, Row]]:
    return ledger.manifest_rows(entry.memory) if entry.memory else []


def _kept(item: MemoryItem) -> Json:
    return {key: getattr(item, key) for key in ("pool", "task", "label", "stage", "score")}


def _text(row: Row) -> Json:
    """Return the text of a row in the columns of a data file."""
    if row.messages:
        return {"messages": [m.fields for m in row.messages], **row.given}
    return {"prompt": row.prompt, "completion": row.completion}


def _whole(row: Json) -> str:
    """Return a row of `_text` as one text."""
    if "messages" in row:
        return "\n".join(message["content"] or "" for message in row["messages"])
    return f"{row['prompt']}{row['completion']}"
