"""Stage x task: what was measured of every task after every entry."""

from typing import Any

from perdure.evaluate.matrix import build_matrix, named_rows
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Score
from perdure.workflows.inspect.views import task_order


def matrix(ledger: Ledger, at: str = "head", *, parts: bool = False) -> dict[str, Any]:
    """Return stage x task with its metrics, from what was measured; what `perdure matrix --json` prints.

    Args:
        ledger: The ledger.
        at: Ref or entry.
        parts: Name the test rows of each cell too, as "test"; see `evaluate.matrix.named_rows`.
    """
    names, stages, records = cells(ledger, ledger.resolve(at))
    made = build_matrix([{"name": name} for name in names], stages, records)
    return {**made, "test": named_rows(records)} if parts else made


def cells(ledger: Ledger, entry: Entry) -> tuple[list[str], list[dict[str, Any]], list[list[Score | None]]]:
    """Return the tasks of an entry, the stages that led to it, and the score of each stage and task, if measured."""
    stages = list(reversed(ledger.ancestors(entry)))
    versions: dict[str, list[str]] = {}  # of each task at each stage: the one known then, else the first one
    for name in task_order(ledger, entry):
        known = [stage.tasks.get(name) for stage in stages]
        first = next(v for v in known if v)
        versions[name] = [v or first for v in known]
    seen = [ledger.seen_by(stage, versions) for stage in stages]
    states = {state for line in seen for state in line.values()}
    found = ledger.scores(states, {v for row in versions.values() for v in row})
    records = [[found.get((line[name], versions[name][i])) for name in versions] for i, line in enumerate(seen)]
    about = [{"entry": stage.id, "kind": stage.kind, "task": stage.task} for stage in stages]
    return list(versions), about, records
