"""Task versions, each decoded once, and their test rows, each tokenised once, while the rows of the ledger stay as they are."""

from collections.abc import Callable, Iterable
from typing import Any

from perdure.core.rows import Row
from perdure.data.chat import Chat
from perdure.data.encode import prompt_ids
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.ledger.tasks import read_task


class TaskCache:
    """Decoded tasks by version.

    A version never changes, but rows of it can be deleted or lose their text, by this process or another one. So the cache is
    emptied whenever the ledger's file has changed, except while this process holds the write lock. Then no other process writes,
    and code that deletes rows calls `clear`.
    """

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.locked = False
        self._tasks: dict[str, TaskData] = {}
        self._prompts: dict[tuple[str, int], list[list[int]]] = {}
        self._stamp = ledger.stamp

    def get(self, name: str, version: str) -> TaskData:
        """Return a version of a task with the rows whose text is stored, and the others by name."""
        self.refresh()
        if version not in self._tasks:
            spec, parts = self.ledger.task(name, version)
            self._tasks[version] = read_task(name, version, spec, parts, self.ledger.row_names(version))
        return self._tasks[version]

    def versions(self, entries: Iterable[Entry]) -> list[TaskData]:
        """Return every task version that these entries know, in the order in which they first occur."""
        known = {version: name for entry in entries for name, version in entry.tasks.items()}
        return [self.get(name, version) for version, name in known.items()]

    def prompts(
        self, task: TaskData, tokenizer: Any, written: Callable[[Row, Any], Chat | None] | None = None
    ) -> list[list[int]]:
        """Return the tokens of the prompt of each test row of a task.

        Args:
            task: Whose rows.
            tokenizer: The model's tokenizer.
            written: Returns the conversation of a row, where the caller has them; see `data.encode.conversation_of`.
        """
        self.refresh()
        key = (task.version, len(task.test))  # a version can lose test rows, and gains none
        if key not in self._prompts:
            self._prompts[key] = [
                prompt_ids(row, tokenizer, written(row, tokenizer) if written else None) for row in task.test
            ]
        return self._prompts[key]

    def refresh(self) -> None:
        """Empty the cache if another process may have changed rows."""
        if not self.locked and self.ledger.stamp != self._stamp:
            self.clear()

    def unlock(self) -> None:
        """Note that the write lock is released; what this process wrote under it is known to the cache."""
        self.locked, self._stamp = False, self.ledger.stamp

    def clear(self) -> None:
        """Empty the cache."""
        self._tasks.clear()
        self._prompts.clear()
        self._stamp = self.ledger.stamp
