"""The verbs about guards: abilities that are scored and never learned."""

from pathlib import Path
from typing import Literal

from perdure.core.progress import Tick
from perdure.core.tables import Records
from perdure.workflows.guards import attach
from perdure.workflows.guards.attach import ListedGuard
from perdure.workspace.opened import AnyPath, Opened


class GuardVerbs(Opened):
    """Add, list and remove guards."""

    def guards(self) -> Records[ListedGuard]:
        """Return the guards of the workspace, in the order in which they were added."""
        return Records(attach.guards(self.session))

    def guard_add(
        self,
        what: AnyPath,
        *,
        name: str | None = None,
        learn: int | None = None,
        data: AnyPath | None = None,
        tick: Tick | None = None,
    ) -> ListedGuard:
        """Score an ability from now on at each learn, edit and revert; see `workflows.guards.attach.add_guard`.

        Args:
            what: Name of a shipped guard, path of a guard file (YAML), or `harness:NAME`.
            name: Name of the guard; None takes the one in its file.
            learn: Number of items that each learn scores; None takes the one in its file, 0 leaves the guard to checkups.
            data: Folder of data files; None takes the one that PERDURE_DATA names.
            tick: Called with (what, done, total) while the base scores rows to select among (`informative: true`).

        Raises:
            BadInput: There is no such guard, its data are missing, or a guard or a task has its name.
            BadSpec: A setting in its file is not valid.
        """
        folder = Path(data) if data else None
        return attach.add_guard(self.session, str(what), name=name, learn=learn, data=folder, tick=tick)

    def guard_remove(self, name: str) -> ListedGuard:
        """Score an ability no longer, and return the guard; one that only checkups measured is forgotten.

        Raises:
            NotFound: No guard has this name.
        """
        return attach.remove_guard(self.session, name)

    def guard_accept(self, name: str, at: str = "head") -> ListedGuard:
        """Compare a guard from now on with the model at an entry, "base" for the base model again, and return the guard.

        Raises:
            NotFound: No guard, or no entry, has this name.
            BadInput: The entry is a candidate.
        """
        guard, _ = attach.accept_guard(self.session, name, at)
        return attach.listed(self.session, guard)

    def guard_mode(self, mode: Literal["warn", "enforce"]) -> None:
        """Set whether a guard that falls is a warning, as in a new workspace, or refuses the entry."""
        attach.set_mode(self.session, mode)
