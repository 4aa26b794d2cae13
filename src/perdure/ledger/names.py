"""The names of tasks: the one under which a task was learned, and the alias under which people see it.

Entries, rows, scores and guards have the name under which a task was learned, which never changes. An alias stands in
`perdure.json`. Every verb takes both names.
"""

from collections.abc import Mapping
from typing import TypeVar

from perdure.ledger.folder import LedgerFolder

T = TypeVar("T")


class NamedTasks(LedgerFolder):
    """The records of a workspace, with the names of its tasks."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """The alias of each renamed task, by the name under which it was learned."""
        return self.config.get("aliases", {})

    def task_name(self, name: str) -> str:
        """Return the name under which a task was learned, given its alias; any other name as it is."""
        return next((task for task, alias in self.aliases.items() if alias == name), name)

    def shown_name(self, task: str) -> str:
        """Return the name under which people see a task: its alias, else its name."""
        return self.aliases.get(task, task)

    def by_shown_name(self, by_task: Mapping[str, T]) -> dict[str, T]:
        """Return values by the names under which people see the tasks, in the same order."""
        return {self.shown_name(task): value for task, value in by_task.items()}

    def every_task(self) -> set[str]:
        """Return the names of all tasks of all entries and of the candidate, as they were learned."""
        return super().task_names()

    def task_names(self) -> set[str]:
        """Return the names of all tasks, and their aliases."""
        return {*self.every_task(), *self.aliases.values()}
