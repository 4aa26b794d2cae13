"""Stage x task: what was measured of every task after every entry."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perdure.evaluate.matrix import GuardColumn, Matrix, Stage, build_matrix
from perdure.evaluate.routing import RoutingAccuracy
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Score
from perdure.workflows.guards.columns import guard_columns
from perdure.workflows.inspect.score_views import task_order
from perdure.workflows.routed_scores import routing_at


@dataclass(frozen=True)
class Measured:
    """The scores on the way to an entry.

    Args:
        tasks: The tasks of the entry.
        stages: The entries that led to it, the base first.
        scores: (stages, tasks); None where not measured.
        guards: The guards of the workspace, by name.
        routing: How many test rows found their task at the entry; None where the tasks were named.
        routed: Whether no request names its task.
    """

    tasks: list[str]
    stages: list[Stage]
    scores: list[list[Score | None]]
    guards: Mapping[str, GuardColumn] = field(default_factory=dict)
    routing: RoutingAccuracy | None = None
    routed: bool = False

    def matrix(self, *, parts: bool = False) -> Matrix:
        """Return the matrix with its metrics, where `parts` with a name for the test rows of each cell."""
        made = build_matrix(self.tasks, self.stages, self.scores, parts=parts, routed=self.routed)
        return replace(made, guards=self.guards, routing=self.routing)


def matrix(ledger: Ledger, at: str = "head", *, parts: bool = False, routed: bool = False) -> Matrix:
    """Return stage x task with its metrics, from what was measured.

    Args:
        ledger: The ledger.
        at: Ref or entry.
        parts: Name the test rows of each cell too.
        routed: Scores of requests that do not name their task, in place of those that do.
    """
    return measured(ledger, ledger.resolve(at), routed=routed).matrix(parts=parts)


def measured(ledger: Ledger, entry: Entry, *, routed: bool = False) -> Measured:
    """Return the tasks of an entry, the stages that led to it, and the score of each stage and task, if measured.

    Args:
        ledger: The ledger.
        entry: The entry.
        routed: See `matrix`.
    """
    stages = list(reversed(ledger.ancestors(entry)))
    versions: dict[str, list[str]] = {}  # of each task at each stage: the one known then, else the first one
    for name in task_order(ledger, entry):
        known = [stage.tasks.get(name) for stage in stages]
        first = next(v for v in known if v)
        versions[name] = [v or first for v in known]
    seen = [dict.fromkeys(versions, ledger.state(one)) if routed else ledger.seen_by(one, versions) for one in stages]
    states = {state for line in seen for state in line.values()}
    by_cell = ledger.scores(states, {v for row in versions.values() for v in row})
    scores = [[by_cell.get((line[name], versions[name][i])) for name in versions] for i, line in enumerate(seen)]
    named = [Stage(stage.id, stage.kind, stage.task) for stage in stages]
    routing = routing_at(ledger, entry, dict(zip(versions, scores[-1], strict=True))) if routed else None
    return Measured(list(versions), named, scores, guard_columns(ledger, stages), routing, routed)
