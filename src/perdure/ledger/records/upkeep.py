"""Results of commands that count, check or delete rows and objects."""

from dataclasses import dataclass

from perdure.core.records import Record, omitted


@dataclass(frozen=True)
class KeptRows(Record):
    """Number of rows of a workspace, each counted once, at the first of these places that has it.

    Args:
        memory: Rows with text that a memory manifest names.
        test: Other rows with text in a test part.
        train: Other rows with text in a train part.
        validation: Other rows with text in a validation part.
        loose: Rows with text that no task and no manifest names.
        names: Rows that are kept without text.
        deleted: Rows that were deleted.
        text_bytes: Bytes of the text of all rows.
    """

    memory: int
    test: int
    train: int
    validation: int
    loose: int
    names: int
    deleted: int
    text_bytes: int

    @property
    def with_text(self) -> dict[str, int]:
        """Number of rows with text, by place; places without such rows are left out."""
        counts = {name: getattr(self, name) for name in ("memory", "test", "train", "validation", "loose")}
        return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class DroppedTexts(Record):
    """The text that was dropped.

    Args:
        rows: Number of rows whose text was deleted.
        bytes: Bytes of that text.
    """

    rows: int
    bytes: int


@dataclass(frozen=True)
class DeletedRow(Record):
    """A row whose text was erased.

    Args:
        row: Its hash.
        rows: Number of rows with this text, which may have several labels and tasks.
        already: Whether all of them had been erased before.
        entries: Ids of the entries that were trained on it.
        tests: Names of the tasks with the row in a held-out part; their earlier scores have one item more.
    """

    row: str
    rows: int
    already: bool
    entries: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class DeletedTask(Record):
    """A task whose rows were erased: their text, and the hashes of those that were stored without text.

    Args:
        task: Name of the task.
        rows: Number of its rows.
        already: Whether all of them had been erased before.
        entries: Ids of the learns that trained on its rows; what their weights learned is not changed.
        own: Slots of head that were trained on its rows alone; `revert TASK` removes them.
        others: Ids of the learns of head's other weights that trained on its rows, or went on from weights that had.
    """

    task: str
    rows: int
    already: bool
    entries: tuple[str, ...]
    own: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Verification(Record):
    """The result of a check of the whole ledger.

    Args:
        ok: Whether there is no problem.
        entries: Number of entries that were checked.
        objects: Number of objects that were checked.
        problems: A sentence for each problem.
    """

    ok: bool
    entries: int
    objects: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Freed(Record):
    """Counts of what was deleted because nothing needs it.

    Args:
        removed: Number of objects.
        rows: Number of task versions, manifests, rows and scores.
        runs: Number of stopped learns whose checkpoint was deleted.
        bytes: Bytes that this freed.
        entries: Number of abandoned entries and of lines about discarded candidates.
    """

    removed: int
    rows: int
    runs: int
    bytes: int
    entries: int = omitted(0)
