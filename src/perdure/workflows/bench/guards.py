"""The guards of a benchmark's run: what each state scores on what the model could do before any task."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.evaluate.subset import over_rows
from perdure.ledger import Entry
from perdure.ledger.records import Score
from perdure.workflows.bench.guard_records import GuardScores, RunGuard
from perdure.workflows.bench.measures import short_items
from perdure.workflows.bench.suite import Suite
from perdure.workflows.guards.attach import add_guard, remove_guard
from perdure.workflows.guards.groups import groups_of
from perdure.workflows.guards.measure import MeasuredGuard, measure_guards
from perdure.workflows.guards.read import read_guard
from perdure.workflows.session import Session

DIGITS = 6  # of a stored number after the point


def check_guards(suite: Suite, data: Path) -> None:
    """Read every guard of a suite, so that one that cannot be read is refused before anything is trained.

    Raises:
        BadInput: No such guard, its data are missing, or a task or another guard has its name.
        BadSpec: A setting in its file is not valid.
    """
    names = {task.name for task in suite.tasks} | {one.name for one in suite.watch}
    for what in suite.guards:
        read = read_guard(guard_place(what, data), data, data)
        if read.spec.informative:
            raise BadInput(
                f"suite {suite.name}: guard {what} is `informative`, and its rows would depend on the base model; leave that "
                "out, so that results of all models are of the same rows"
            )
        name = read.task.name
        if name in names:
            raise BadInput(f"suite {suite.name}: guard {what} is called {name}, as a task or another guard is")
        names.add(name)


def guard_place(what: str, data: Path) -> str:
    """Return a guard as `perdure guard add` takes it: a file is one in the folder of data."""
    return str(data / what) if Path(what).suffix in (".yaml", ".yml") else what


def add_guards(session: Session, suite: Suite, data: Path) -> tuple[str, ...]:
    """Add the guards of a suite to a workspace and return their names. One that it has is replaced if it has other rows now."""
    had = {guard.name: guard.version for guard in session.ledger.guards()}
    names = []
    for what in suite.guards:
        task = read_guard(guard_place(what, data), data, data).task
        if task.name in had and had[task.name] != task.version:
            remove_guard(session, task.name)
        if had.get(task.name) != task.version:
            add_guard(session, guard_place(what, data), data=data)
        names.append(task.name)
    return tuple(names)


def guard_items(session: Session, suite: Suite, names: Sequence[str]) -> dict[str, RunGuard]:
    """Return what the base and the stages of a run score on guards, over the rows that no task taught.

    Args:
        session: Of the workspace; every task is learned.
        suite: Says after which tasks, and on how many rows.
        names: The guards.

    Cost: a generation or a forward a row, guard and stage, and once for the base. What is stored is not scored again.
    """
    ledger = session.ledger
    learned = [entry for entry in reversed(ledger.ancestors(ledger.resolve("head"))) if entry.kind == "learn"]
    scored: list[Mapping[str, MeasuredGuard]] = [
        _measured(session, suite, entry, names) if suite.guards_at == "every" or entry is learned[-1] else {}
        for entry in learned
    ]
    return {name: _guard(last, [at.get(name) for at in scored]) for name, last in scored[-1].items()}


def _measured(session: Session, suite: Suite, entry: Entry, names: Sequence[str]) -> Mapping[str, MeasuredGuard]:
    return measure_guards(session, entry, suite.guard_budget, names=names)


def _guard(last: MeasuredGuard, stages: Sequence[MeasuredGuard | None]) -> RunGuard:
    """Return the scores of a guard over the rows of the last stage, since later tasks may teach rows."""
    rows = last.now.rows
    return RunGuard(
        ability=last.guard.ability,
        version=last.guard.version[:16],
        chance=last.guard.chance,
        rows=tuple(row[:16] for row in rows),
        groups=groups_of(last.rows),
        base=_scores(last.before, rows),
        stages=tuple(_scores(stage.now, rows) if stage else None for stage in stages),
    )


def _scores(score: Score, rows: Sequence[str]) -> GuardScores:
    own = over_rows(score, rows)
    if own is None or own.rows != tuple(rows):
        raise ValueError("a stage was scored on other rows than the last; the rows of a guard have one order")
    readings = {name: tuple(round(value, DIGITS) for value in values) for name, values in own.readings.items()}
    items = short_items([round(item, DIGITS) for item in own.items])
    return GuardScores(items=items, readings=readings, seconds=round(score.seconds, 1))
