"""The rows in memory, as typed values and as rows to learn from again. Nothing here loads a model or torch."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.records import JsonObject, Record
from perdure.core.rows import Row
from perdure.ledger.records import KeptRows, MemoryItem, RowCounts

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger


@dataclass(frozen=True)
class StoredRow(Record):
    """A row whose text the workspace stores.

    Args:
        row: Its hash.
        task: Its task.
        label: Its class; None where the task has no classes.
        text: Its text, by the columns of a data file. In JSON these stand among the other keys.
    """

    row: str
    task: str
    label: str | None
    text: JsonObject

    def to_json(self) -> JsonObject:
        """Return all keys in one object."""
        return {"row": self.row, "task": self.task, "label": self.label, **self.text}

    @property
    def contents(self) -> list[str]:
        """The prompt and the completion, or each turn of the conversation."""
        return contents(self.text)


@dataclass(frozen=True)
class RememberedRow(Record):
    """A row in the memory of an entry.

    Args:
        row: Its hash.
        pool: Name of the pool that draws it.
        task: Its task.
        label: Its class; None where the task has no classes.
        stage: Number of the learn that admitted it; None of a row that no task brought.
        score: The admitting method's rank of it; likewise.
        text: Its text, by the columns of a data file. In JSON these stand among the other keys.
    """

    row: str
    pool: str
    task: str
    label: str | None
    stage: int | None
    score: float | None
    text: JsonObject

    def to_json(self) -> JsonObject:
        """Return all keys in one object."""
        about = {name: value for name, value in vars(self).items() if name != "text"}
        return {**about, **self.text}

    @property
    def contents(self) -> list[str]:
        """The prompt and the completion, or each turn of the conversation."""
        return contents(self.text)


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


@dataclass(frozen=True)
class MemoryStats(Record):
    """The rows in the memory of an entry, and the rows whose text the workspace stores.

    Args:
        entry: Id of the entry.
        rows: Number of rows in its memory.
        text_bytes: Bytes of their text.
        column_bytes: Bytes of their columns, such as a teacher's answers.
        pools: Number of rows by pool.
        tasks: Number of rows by task.
        labels: Number of rows by task and label, of tasks with classes.
        kept: The rows whose text the workspace stores.
    """

    entry: str
    rows: int
    text_bytes: int
    column_bytes: int
    pools: Mapping[str, int]
    tasks: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    kept: RowsKept


def remembered(ledger: "Ledger", at: str = "head") -> list[RememberedRow]:
    """Return the rows in the memory of an entry.

    Raises:
        NotFound: The ref is not known.
    """
    return [
        RememberedRow(row.hash, item.pool, item.task, item.label, item.stage, item.score, _text(row))
        for item, row in _items(ledger, ledger.resolve(at))
    ]


def kept(ledger: "Ledger", text: str = "") -> list[StoredRow]:
    """Return every row whose text is stored and contains `text`, in upper or lower case."""
    wanted = text.casefold()
    found = [StoredRow(row.hash, row.task, row.label, _text(row)) for row in ledger.kept_rows()]
    return [row for row in found if wanted in _whole(row.text).casefold()]


def memory_stats(ledger: "Ledger", at: str = "head") -> MemoryStats:
    """Return the number of rows in the memory of an entry, by pool, task and label, and the bytes of text and of columns.

    Raises:
        NotFound: The ref is not known.
    """
    entry = ledger.resolve(at)
    items = _items(ledger, entry)
    labels: dict[str, Counter[str]] = {}
    for _, row in items:
        labels.setdefault(row.task, Counter())[row.label or ""] += 1
    return MemoryStats(
        entry=entry.id,
        rows=len(items),
        text_bytes=sum(len(json.dumps(_text(row), ensure_ascii=False).encode()) for _, row in items),
        column_bytes=ledger.objects.size(entry.columns) if entry.columns else 0,
        pools=dict(Counter(item.pool for item, _ in items)),
        tasks={task: sum(counts.values()) for task, counts in labels.items()},
        labels={task: dict(sorted(counts.items())) for task, counts in labels.items() if set(counts) != {""}},
        kept=rows_kept(ledger),
    )


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


def _text(row: Row) -> JsonObject:
    """Return the text of a row in the columns of a data file."""
    if row.messages:
        return {"messages": [message.fields for message in row.messages], **row.given}
    return {"prompt": row.prompt, "completion": row.completion}


def _whole(text: JsonObject) -> str:
    """Return the text of a row in one piece."""
    return ("\n" if "messages" in text else "").join(contents(text))


def contents(text: JsonObject) -> list[str]:
    """Return the prompt and the completion of a row, or each turn of its conversation."""
    turns = text.get("messages")
    if isinstance(turns, list):
        return [str(turn["content"] or "") for turn in turns if isinstance(turn, dict)]
    return [str(text["prompt"]), str(text["completion"])]
