"""Score tasks at an entry."""

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.core.errors import NotFound
from perdure.core.progress import Tick
from perdure.core.records import JsonObject, plain
from perdure.core.tables import Grid, Tabular, cells_of
from perdure.data.task import TaskData
from perdure.evaluate.routing import RoutingAccuracy
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import ScoreSummary
from perdure.workflows.inspect.score_views import taken_out, task_order
from perdure.workflows.routed_scores import routing_at, score_routed
from perdure.workflows.session import Scored, Session
from perdure.workflows.unscored import without_unrun


@dataclass(frozen=True)
class Evaluation(Tabular):
    """Tasks scored at an entry.

    Args:
        ref: The ref, as given.
        entry: Id of the entry.
        scores: By task name.
        about: Notices about the tasks: those that were taken out before the entry, and those of which a sample is scored.
        routing: How many rows found their task, where they did not name it; None where they did, and without a router.
    """

    ref: str
    entry: str
    scores: dict[str, Scored]
    about: tuple[str, ...] = ()
    routing: RoutingAccuracy | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices about prompts and answers, each once."""
        return tuple(
            dict.fromkeys([*self.about, *(text for scored in self.scores.values() for text in scored.notices)])
        )

    @property
    def tasks(self) -> dict[str, ScoreSummary]:
        """The score of each task."""
        return {name: found.score.summary for name, found in self.scores.items()}

    def grid(self) -> Grid:
        """Return a row for each task."""
        columns = ("score", "low", "high", "n", "scorer")
        rows = tuple((name, *cells_of(score, columns)) for name, score in self.tasks.items())
        return Grid(("task", *columns), rows)

    def to_json(self) -> JsonObject:
        """Return "ref", "entry" and "tasks": score, interval, n and scorer of each; "routing" where rows were routed."""
        routing = {"routing": self.routing.to_json()} if self.routing else {}
        return {"ref": self.ref, "entry": self.entry, "tasks": plain(self.tasks), **routing}


def evaluate(
    session: Session,
    tasks: Sequence[str] = (),
    at: str = "head",
    tick: Tick | None = None,
    *,
    every: bool = False,
    routed: bool = False,
) -> Evaluation:
    """Score tasks at a ref, all that it knows unless some are named; stored scores are looked up.

    Args:
        session: Of the workspace.
        tasks: Names of the tasks; all that the ref knows if there is none.
        at: Ref or entry.
        tick: Called with (what, done, total).
        every: Score every test row, and not a sample of many; see `TaskData.scored_rows`.
        routed: Score requests that do not name their task; see `workflows.routed_scores`.

    Raises:
        NotFound: A task or ref is not known.
    """
    entry = session.ledger.resolve(at)
    unrun: tuple[str, ...] = ()
    named = [session.ledger.task_name(name) for name in tasks] or task_order(session.ledger, entry)
    known = {name: task_at(session, name, entry) for name in named}  # before the first is scored
    if not tasks:  # a task whose test rows were all deleted has no score any more
        seen = session.ledger.seen_by(entry, known)
        known = {
            name: task for name, task in known.items() if task.test or session.ledger.score(seen[name], task.version)
        }
        known, unrun = without_unrun(session, entry, known, every=every)
    scored = {name: session.score(entry, task, tick, every=every) for name, task in known.items()}
    routing = None
    if routed:
        seconds = {name: one.seconds for name, one in scored.items()}
        scored = {name: Scored(score_routed(session, entry, task, tick), seconds[name]) for name, task in known.items()}
        routing = routing_at(session.ledger, entry, {name: one.score for name, one in scored.items()})
    gone = [text for name in scored if (text := gone_notice(session.ledger, entry, name))]
    sampled = [
        f"task {name}: {scored[name].score.n:,} of {len(task.test):,} test rows are scored; --all scores all of them"
        for name, task in known.items()
        if scored[name].score.n < len(task.test)
    ]
    return Evaluation(at, entry.id, scored, (*gone, *unrun, *sampled), routing)


def gone_notice(ledger: Ledger, entry: Entry, task: str) -> str | None:
    """Return a notice where a task was taken out before `entry`; None for any other task."""
    past = taken_out(ledger, entry, task)
    if past is None:
        return None
    return (
        f"task {task} was taken out in entry {past.id[:12]}: the model that all tasks share answers in its template; "
        f"add --at {past.id[:12]}~1 for the model with the task"
    )


def task_at(session: Session, name: str, entry: Entry) -> TaskData:
    """Return a task at an entry; of a state older than the task, which head's history knows, its first version.

    Raises:
        NotFound: Neither the entry nor head's history knows the task.
    """
    if name in entry.tasks:
        return session.task(name, entry)
    ledger = session.ledger
    head = ledger.resolve("head")
    first = next((one for one in reversed(ledger.ancestors(head)) if name in one.tasks), None)
    if first is not None:
        return session.task(name, first)
    if any(guard.name == name for guard in ledger.guards()):
        raise NotFound(
            f"{name} is a guard and no task: each learn scores it, and 'perdure matrix' and 'perdure gate' show it"
        )
    here = [ledger.shown_name(task) for task in task_order(ledger, entry) or task_order(ledger, head)]
    other = next((other for other in reversed(ledger.entries()) if name in other.tasks), None)
    hint = f"; entry {other.id[:12]}, outside head's history, does: add --at {other.id[:12]}" if other else ""
    raise NotFound(f"no task {name!r} is known here; known are {', '.join(here) or 'none yet'}{hint}")
