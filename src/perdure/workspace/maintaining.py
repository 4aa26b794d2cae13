"""The verbs that undo, check and move a workspace."""

from collections.abc import Iterable
from pathlib import Path

from perdure.core.progress import Tick
from perdure.core.tables import Records
from perdure.ledger import Entry
from perdure.ledger.records import DeletedRow, DeletedTask, Freed, LogEntry, Verification
from perdure.workflows import upkeep
from perdure.workflows.edit.results import RevertResult
from perdure.workflows.guards.attach import Mode
from perdure.workflows.inspect.log import abandoned
from perdure.workflows.learn.kept_rows import Pruned, prune
from perdure.workflows.learn.remove_task import RemovedTask, remove_task
from perdure.workflows.learn.revert_task import TaskRevertResult
from perdure.workflows.pack import Packed, pack, relocate
from perdure.workflows.rename_task import RenamedTask, rename_task
from perdure.workflows.rescore import Rescore, Rows
from perdure.workflows.revert import revert
from perdure.workflows.trust import trust
from perdure.workspace.opened import AnyPath, Opened


class UpkeepVerbs(Opened):
    """Undo, check and move."""

    def rollback(self, ref: str) -> Entry:
        """Move head to `ref`: the same logits, to the bit, and the same memory, as it had then."""
        return upkeep.rollback(self.session, ref)

    def revert(
        self,
        what: str,
        *,
        resolve: bool = False,
        tick: Tick | None = None,
        score: Rows = "all",
        guards: Mode | None = None,
    ) -> RevertResult | TaskRevertResult:
        """Record an entry without a task, a fact, or all facts of an edit; see `workflows.revert`.

        Args:
            what: The task, the fact or the edit.
            resolve: Solve the other facts again, as if this one had never been edited.
            tick: Called with (what, done, total) as work goes on.
            score: See `edit`.
            guards: "none" scores no guard; a revert is never refused.
        """
        return revert(self.session, what, resolve=resolve, tick=tick, rescoring=Rescore(score, guards=guards))

    def task_remove(self, task: str, *, message: str | None = None) -> RemovedTask:
        """Stop to replay, score and guard a task, and record that; what the weights learned stays. See `learn.remove_task`."""
        return remove_task(self.session, task, message)

    def task_rename(self, old: str, new: str) -> RenamedTask:
        """Give a task an alias, under which it is shown and every verb takes it; no id changes. See `workflows.rename_task`.

        Its own name as `new` removes the alias.
        """
        return rename_task(self.session, old, new)

    def delete_row(self, row_hash: str) -> DeletedRow:
        """Erase a row's text from every manifest and task, by its hash or the beginning of it; see `Ledger.delete_row`."""
        return upkeep.delete_row(self.session, row_hash)

    def delete_task_rows(self, task: str) -> DeletedTask:
        """Erase every row of a task from every memory and version; see `workflows.upkeep.delete_task_rows`."""
        return upkeep.delete_task_rows(self.session, task)

    def prune(self, tasks: Iterable[str] = ()) -> Pruned:
        """Drop the text of every row that neither memory nor a test part needs; see `workflows.learn.kept_rows.prune`."""
        return prune(self.session, tasks)

    def abandoned(self) -> Records[LogEntry]:
        """Return the entries that no ref and no candidate reaches, and the candidates that were discarded, newest first."""
        return Records(abandoned(self.ledger))

    def gc(self, *, abandoned: bool = False) -> Freed:
        """Delete what no entry and no candidate needs, and statistics of edits that older versions kept in the workspace.

        Args:
            abandoned: Delete the entries that `abandoned` lists too. They cannot be restored.
        """
        return upkeep.gc(self.session, [line.entry for line in self.abandoned()] if abandoned else ())

    def verify(self) -> Verification:
        """Hash everything again, the base's weights too, and load the base."""
        return upkeep.verify(self.session)

    def trust(self, file: AnyPath) -> str:
        """Allow the code of a Python file to run as a scorer in this workspace, and return the hash of its text.

        Raises:
            BadInput: The file cannot be read.
        """
        return trust(self.ledger.root, Path(file))

    def relocate(self, model: str, *, revision: str | None = None, tick: Tick | None = None) -> Path:
        """Point the workspace to where its base model is now; see `workflows.pack.relocate`."""
        return relocate(self.session, model, revision=revision, tick=tick)

    def pack(self, file: AnyPath, *, with_base: bool = False, force: bool = False, tick: Tick | None = None) -> Packed:
        """Write the workspace into one archive, also while somebody learns in it; see `workflows.pack.pack`."""
        return pack(self.session, Path(file), with_base=with_base, force=force, tick=tick)
