"""Stage x task: what was measured of every task after every entry."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perdure.evaluate.matrix import GuardColumn, Matrix, Stage, build_matrix
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Score
from perdure.workflows.guards.columns import guard_columns
from perdure.workflows.inspect.score_views import task_order


@dataclass(frozen=True)
class Measured:
    """The scores on the way to an entry.

    Args:
        tasks: The tasks of the entry.
        stages: The entries that led to it, the base first.
        scores: (stages, tasks); None where not measured.
        guards: The guards of the workspace, by name.
    """

    tasks: list[str]
    stages: list[Stage]
    scores: list[list[Score | None]]
    guards: Mapping[str, GuardColumn] = field(default_factory=dict)

    def matrix(self, *, parts: bool = False) -> Matrix:
        """Return the matrix with its metrics, where `parts` with a name for the test rows of each cell."""
        return replace(build_matrix(self.tasks, self.stages, self.scores, parts=parts), guards=self.guards)


def matrix(ledger: Ledger, at: str = "head", *, parts: bool = False) -> Matrix:
    """Return stage x task with its metrics, from what was measured.

    Args:
        ledger: The ledger.
        at: Ref or entry.
        parts: Name the test rows of each cell too.
    """
    return measured(ledger, ledger.resolve(at)).matrix(parts=parts)


def measured(ledger: Ledger, entry: Entry) -> Measured:
    """Return the tasks of an entry, the stages that led to it, and the score of each stage and task, if measured."""
    stages = list(reversed(ledger.ancestors(entry)))
    versions: dict[str, list[str]] = {}  # of each task at each stage: the one known then, else the first one
    for name in task_order(ledger, entry):
        known = [stage.tasks.get(name) for stage in stages]
        first = next(v for v in known if v)
        versions[name] = [v or first for v in known]
    seen = [ledger.seen_by(stage, versions) for stage in stages]
    states = {state for line in seen for state in line.values()}
    by_cell = ledger.scores(states, {v for row in versions.values() for v in row})
    scores = [[by_cell.get((line[name], versions[name][i])) for name in versions] for i, line in enumerate(seen)]
    named = [Stage(stage.id, stage.kind, stage.task) for stage in stages]
    return Measured(list(versions), named, scores, guard_columns(ledger, stages))
