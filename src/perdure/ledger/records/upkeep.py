"""What verbs that count, check or drop rows and objects return."""

from dataclasses import dataclass

from perdure.core.records import Record


@dataclass(frozen=True)
class KeptRows(Record):
    """How many rows a workspace keeps, each counted once, at its first place of these.

    Args:
        memory: Rows with text that a memory manifest names.
        test: Other rows with text in a test part.
        train: Other rows with text in a train part.
        validation: Other rows with text in a validation part.
        loose: Rows with text that no task and no manifest names.
        names: Rows that are kept by name.
        deleted: Rows that were deleted.
        text_bytes: Bytes of all that text.
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
        """How many rows are kept with their text, by place, without places that have none."""
        counts = {name: getattr(self, name) for name in ("memory", "test", "train", "validation", "loose")}
        return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class DroppedTexts(Record):
    """The text that was dropped.

    Args:
        rows: How many rows lost their text.
        bytes: Bytes of it.
    """

    rows: int
    bytes: int


@dataclass(frozen=True)
class DeletedRow(Record):
    """A row whose text was erased.

    Args:
        row: Its hash.
        rows: How many kept rows had it: a text can be under several labels and tasks.
        already: Whether all of them were erased before.
        entries: Ids of the entries that were trained on it.
        tests: Names of the tasks that lost it from a held-out part, whose earlier scores count an item more.
    """

    row: str
    rows: int
    already: bool
    entries: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Verification(Record):
    """What a check of the whole ledger found.

    Args:
        ok: Whether nothing is wrong.
        entries: How many were checked.
        objects: How many were checked.
        problems: What is wrong, in words.
    """

    ok: bool
    entries: int
    objects: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Freed(Record):
    """What was deleted because nothing needs it.

    Args:
        removed: How many objects.
        rows: How many task versions, manifests, rows and scores.
        runs: How many stopped learns lost their checkpoint.
        bytes: Bytes that this freed.
    """

    removed: int
    rows: int
    runs: int
    bytes: int
