"""Where the rows of new data occur already: by an index over what rows ask, so that no older task version is read for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from perdure.core.rows import Row, RowName
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger, RowPlace

LEARNED = ("train", "validation")  # parts that decide the weights
HELD_OUT = ("validation", "test")  # parts that are not trained on


@dataclass(frozen=True)
class KnownRows:
    """Occurrences of some rows in the task versions of a workspace.

    Args:
        ledger: The ledger.
        history: Task name by version, of every version that head's history knows, oldest first.
        places: The occurrences, in whatever task version.
    """

    ledger: Ledger
    history: Mapping[str, str]
    places: tuple[RowPlace, ...]

    @classmethod
    def of(cls, ledger: Ledger, parent: Entry, rows: Iterable[Row | RowName]) -> "KnownRows":
        """Return the places of rows with the same question or the same text as these."""
        return cls(ledger, versions_at(reversed(ledger.ancestors(parent))), tuple(ledger.places_of(rows)))

    def questions(self, parts: Sequence[str], task: str | None = None) -> set[str]:
        """Return the questions in some parts of the task versions of head's history, or of those of one task."""
        return {place.question for place in self._in_history(parts, task)}

    def hashes(self, parts: Sequence[str], task: str | None = None) -> set[str]:
        """Return the row hashes in some parts of the task versions of head's history, or of those of one task."""
        return {place.hash for place in self._in_history(parts, task)}

    def leaks(self, new: TaskData) -> list[str]:
        """Return the versions of head's history that share a row with `new` across a test part, oldest first."""
        across = self._across(new)
        return [version for version in self.history if version in across]

    def leaks_elsewhere(self, new: TaskData) -> list[tuple[Entry, str]]:
        """Return other such versions, each with the first entry that knows it."""
        others = self._across(new) - self.history.keys()
        first: dict[str, Entry] = {}
        for entry in self.ledger.entries() if others else ():
            for version in entry.tasks.values():
                if version in others:
                    first.setdefault(version, entry)
        return [(entry, version) for version, entry in first.items()]

    def _in_history(self, parts: Sequence[str], task: str | None) -> list[RowPlace]:
        return [
            place
            for place in self.places
            if place.part in parts and place.version in self.history and task in (None, self.history[place.version])
        ]

    def _across(self, new: TaskData) -> set[str]:
        """Return the versions whose learned parts have a test row of `new`, or whose test part has a row that it learns."""
        tested = {name for row in new.test for name in (*row.questions, row.hash)}
        learned = {name for row in new.learned for name in (row.question, row.hash)}
        return {
            place.version
            for place in self.places
            if (place.part in LEARNED and (place.question in tested or place.hash in tested))
            or (place.part == "test" and (place.question in learned or place.hash in learned))
        }


def versions_at(entries: Iterable[Entry]) -> dict[str, str]:
    """Return the task name of each task version that these entries know, in the order in which the versions first occur."""
    return {version: name for entry in entries for name, version in entry.tasks.items()}
