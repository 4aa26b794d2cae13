"""What every step of one learn is given."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from perdure.core.canonical import content_hash
from perdure.core.clock import Clock
from perdure.core.errors import Interrupted
from perdure.core.progress import Tick
from perdure.core.stages import Stages
from perdure.data.task import TaskData
from perdure.ledger import Entry, row_key
from perdure.ledger.records import Score, Signature
from perdure.workflows.guards.attach import Mode
from perdure.workflows.guards.measure import MeasuredGuard, measure_guards
from perdure.workflows.learn.plan import Plan
from perdure.workflows.routed_scores import routed_scores
from perdure.workflows.session import Scored, Session


@dataclass(frozen=True)
class Run:
    """One learn: what it is of, how far it is, and whether it has to stop.

    Args:
        session: Of the workspace; the caller holds its write lock.
        plan: What is to be learned.
        tick: Called with (what, done, total) as work goes on.
        stop: Returns the name of a signal that asks to stop, or None.
        clock: Counts the seconds of training and of scoring.
        signature: Author and message.
        place: Folder for the files of a running learn; None for the folder of this learn in the workspace.
        guards: What a guard that fell does; "none" scores no guard.
    """

    session: Session
    plan: Plan
    tick: Tick | None
    stop: Callable[[], str | None]
    clock: Clock = field(default_factory=Clock)
    signature: Signature = field(default_factory=Signature)
    place: Path | None = None
    guards: Mode = "none"

    @property
    def folder(self) -> Path:
        """Where the checkpoint of this learn is: the same folder for the same learn, in whichever process."""
        if self.place:
            return self.place
        plan = self.plan
        data = [plan.task.version, plan.task.fingerprint, *map(row_key, plan.general)]
        key = content_hash([plan.parent.id, plan.recipe.to_json(), *data, self.session.seed])
        return self.session.ledger.root / "runs" / key[:16]

    @property
    def called(self) -> str:
        """The name under which people see the task."""
        return self.session.ledger.shown_name(self.plan.task.name)

    @cached_property
    def stages(self) -> Stages:
        """The stages of this learn, counted by its clock."""
        return Stages(self.clock, self.report)

    def score(self, entry: Entry, task: TaskData) -> Scored:
        """Score a task at an entry.

        Raises:
            Interrupted: A signal came; tasks that are not scored yet have no record.
        """
        with self.stages.stage("scoring"):
            scored = self.session.score(entry, task, self.report)
        self.clock.scored += scored.seconds
        return scored

    def score_routed(self, entry: Entry, tasks: Iterable[TaskData]) -> dict[str, Score]:
        """Score tasks at an entry where no request names its task; nothing where no task was learned with a router.

        Raises:
            Interrupted: A signal came; tasks that are not scored yet have no record.
        """
        with self.stages.stage("scoring"):
            return routed_scores(self.session, entry, tasks, self.report)

    def score_guards(self, entry: Entry) -> dict[str, MeasuredGuard]:
        """Score the guards of the workspace at an entry and at their references, unless they are left out.

        Raises:
            Interrupted: A signal came; items that are not scored yet have no record.
        """
        if self.guards == "none" or not self.session.ledger.guards():
            return {}
        with self.stages.stage("guards"):
            measured = measure_guards(self.session, entry, tick=self.report)
        self.clock.scored += sum(one.seconds for one in measured.values())
        return measured

    def report(self, what: str, done: int, total: int) -> None:
        """Show how far some work is.

        Raises:
            Interrupted: A signal came.
        """
        if signal := self.stop():
            raise Interrupted(f"stopped by {signal} while {what}; run the same command again to go on")
        if self.tick:
            self.tick(what, done, total)
