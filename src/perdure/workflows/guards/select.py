"""Selected rows of a guard (`informative: true`): those that the base neither surely gets right nor surely gets wrong.

Selection sees the base alone. A harmless change moves the score of selected rows a little towards that of all rows, since rows
of which the base happens to be unsure were picked. So rows that no selection saw are a guard of their own beside them, the check.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from perdure.core.errors import BadInput, BadSpec
from perdure.core.progress import Tick
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.data.guard_spec import ItemCounts
from perdure.data.task import TaskData
from perdure.ledger.records import Guard, GuardBudget, Selection
from perdure.workflows.guards.measure import score_guard
from perdure.workflows.guards.read import ReadGuard, chance_of
from perdure.workflows.session import Session

LOW, HIGH = 0.15, 0.85  # probability of the right choice at the base, of rows that are kept
POOL = 3  # rows that are scored at the base for each row that is wanted
SELECTED, CHECK = "_selected", "_check"  # ends of the names of both guards
P_GOLD = "p_gold"  # reading of rows with choices


@dataclass(frozen=True)
class Parts:
    """The two guards of a file with `informative: true`, not added yet.

    Args:
        selected: The rows that were selected.
        check: Rows that no selection saw.
        selection: How the former were selected.
    """

    selected: ReadGuard
    check: ReadGuard
    selection: Selection


def names_of(name: str) -> tuple[str, str]:
    """Return the names of both guards: a score of selected rows is never called by the name of the whole set."""
    stem = name.removesuffix(SELECTED)
    return stem + SELECTED, stem + CHECK


def select(session: Session, read: ReadGuard, tick: Tick | None = None) -> Parts:
    """Return the selected rows of a guard, and its check.

    Of its rows in their one order, the first n (a quarter of all rows at most) are the check, and the next 3n the pool: the base
    scores these once, and the first n whose right choice has a probability of .15 to .85 are kept. n is `items: {full: n}`.

    Args:
        session: Of the workspace; the caller holds its write lock.
        read: The guard, with all its rows.
        tick: Called with (what, done, total).

    Raises:
        BadSpec: The rows are not scored by choice.
        BadInput: There are fewer than four rows, or none is in the range.

    Cost: the base's score of the pool, which is stored.
    """
    if read.task.scorer["name"] != "choice":
        raise BadSpec(
            f"guard {read.spec.name}: `informative` selects by the probability of the right choice, and its scorer is "
            f"{read.task.scorer['name']}; leave informative out, or give rows with choices (scorer: choice)"
        )
    rows, full = read.task.test, read.spec.items.full
    wanted = len(rows) // (POOL + 1) if full == "all" else full
    held_out = min(wanted, len(rows) // (POOL + 1))
    if not held_out:
        raise BadInput(
            f"guard {read.spec.name} has {counted(len(rows), 'row')}, too few to select among; give four or more"
        )
    selected, check = names_of(read.spec.name)
    pool = part(read.task, f"{read.spec.name}", rows[held_out : held_out + POOL * wanted])
    kept = informative(pool.test, _probabilities(session, read, pool, tick), wanted)
    if not kept:
        raise BadInput(
            f"guard {read.spec.name}: no row of {len(pool.test)} has a right choice of probability {LOW} to {HIGH} at the base; "
            "leave informative out"
        )
    return Parts(
        _guard(read, selected, kept, read.spec.items),
        _guard(read, check, rows[:held_out], read.spec.items.model_copy(update={"learn": 0})),
        Selection(pool.version, len(pool.test), wanted, check),
    )


def informative(rows: Sequence[Row], probabilities: Sequence[float], wanted: int) -> tuple[Row, ...]:
    """Return the first rows whose right choice has a probability of .15 to .85, as many as are wanted or there are.

    Args:
        rows: The pool, in order.
        probabilities: Probability of the right choice of each row at the base.
        wanted: Most rows.
    """
    return tuple(row for row, p in zip(rows, probabilities, strict=True) if LOW <= p <= HIGH)[:wanted]


def part(task: TaskData, name: str, rows: Sequence[Row]) -> TaskData:
    """Return some rows of a guard's task as a task of another name."""
    return replace(
        task,
        spec=task.spec.model_copy(update={"name": name, "test_rows": len(rows)}),
        test=tuple(replace(row, task=name) for row in rows),
        fingerprint="",
        version="",
        default="",
        choices=(),
    )


def _guard(read: ReadGuard, name: str, rows: Sequence[Row], items: ItemCounts) -> ReadGuard:
    task = part(read.task, name, rows)
    spec = read.spec.model_copy(update={"ability_guard": name, "items": items})
    counts = (items.quick if items.learn is None else items.learn, items.quick, items.standard, len(rows))
    return ReadGuard(spec, task, GuardBudget(*(min(n, len(rows)) for n in counts)), chance_of(spec, task), read.source)


def _probabilities(session: Session, read: ReadGuard, pool: TaskData, tick: Tick | None) -> Sequence[float]:
    """Return the probability of the right choice of each row of a pool at the base; its score is stored."""
    ledger, base, n = session.ledger, session.ledger.resolve("base"), len(pool.test)
    ledger.put_task(pool.name, pool.version, pool.to_json(), {"test": pool.test})
    guard = Guard(
        name=pool.name,
        version=pool.version,
        ability=read.spec.ability,
        items=GuardBudget(n, n, n, n),
        reference=base.id,
    )
    score = score_guard(session, guard, base, n, tick).score
    by_row = dict(zip(score.rows, score.readings[P_GOLD], strict=True))
    return [by_row[row.hash] for row in pool.test]
