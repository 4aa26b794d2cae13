"""Score guards at an entry and at their reference: stored items are looked up, missing ones are scored in fixed pieces."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import fmean

from perdure.core.progress import Tick
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.data.guard_order import boundary, pieces
from perdure.data.task import TaskData
from perdure.evaluate.run_code import not_run
from perdure.evaluate.scorers import HARNESS, SAME, runs_programs, score_record
from perdure.evaluate.subset import over_rows
from perdure.ledger import Entry
from perdure.ledger.records import Guard, Score
from perdure.workflows.guards.drift import drift_piece
from perdure.workflows.guards.edited import edited_rows
from perdure.workflows.guards.harness import harness_piece
from perdure.workflows.guards.leaks import leaked_rows
from perdure.workflows.scoring import Measured, measure
from perdure.workflows.session import Scored, Session
from perdure.workflows.trust import trusted_text

Budget = str | Mapping[str, int]
PACKAGE = "lm_eval"


@dataclass(frozen=True)
class MeasuredGuard:
    """A guard scored at its reference and at an entry, over the same rows.

    Args:
        guard: The guard.
        rows: The rows, in the order of the items.
        before: Its score at the reference.
        now: Its score at the entry.
        leaked: Number of rows that are left out, since the model was trained on what they ask, or since a fact was edited.
        seconds: What scoring took now.
        notices: Notices about prompts, answers and rows that are left out.
    """

    guard: Guard
    rows: tuple[Row, ...]
    before: Score
    now: Score
    leaked: int = 0
    seconds: float = 0.0
    notices: tuple[str, ...] = ()

    @property
    def readings(self) -> dict[str, float]:
        """The mean of each further reading at the entry, by name."""
        return {name: fmean(values) for name, values in self.now.readings.items()}


def measure_guards(
    session: Session,
    entry: Entry,
    budget: Budget = "learn",
    *,
    names: Collection[str] | None = None,
    guards: Sequence[Guard] | None = None,
    edited: Collection[str] = (),
    tick: Tick | None = None,
) -> dict[str, MeasuredGuard]:
    """Return guards scored at an entry and at the reference of each.

    A guard of no items in the budget is left out, as is one of which every row leaked or whose programs may not run
    (`not_run_guards`).

    Args:
        session: Of the workspace.
        entry: An entry or a draft, its objects stored.
        budget: "learn", "quick", "standard" or "full"; or the number of items of each guard by name. A number is rounded up to
            the end of a piece.
        names: Names of the guards; None is all.
        guards: The guards, their rows stored; None takes those of the workspace.
        edited: Prompts of facts that the entry does not record yet. Rows that ask these, or a fact in force, are left out.
        tick: Called with (what, done, total) as work goes on.
    """
    ledger = session.ledger
    wanted = {
        guard.name: (guard, n)
        for guard in (ledger.guards() if guards is None else guards)
        if (names is None or guard.name in names) and (n := items_of(guard, budget)) and may_run(session, guard)
    }
    before: dict[str, Scored] = {}
    for name, (guard, n) in wanted.items():  # every reference first, so that the model changes twice at most
        before[name] = score_guard(session, guard, ledger.entry(guard.reference), n, tick)
    measured: dict[str, MeasuredGuard] = {}
    for name, (guard, n) in wanted.items():
        now = score_guard(session, guard, entry, n, tick)
        if (pair := _paired(session, guard, entry, before[name], now, n, edited)) is not None:
            measured[name] = pair
    return measured


def may_run(session: Session, guard: Guard) -> bool:
    """Return whether a guard can be scored.

    One whose answers are programs can only where the user demands that these run, and one that a task of lm-evaluation-harness
    scores only where the package is installed.
    """
    scorer = session.tasks.get(guard.name, guard.version).scorer
    if scorer["name"] == HARNESS:
        return find_spec(PACKAGE) is not None
    return session.run_code != "no" or not runs_programs(scorer)


def left_out(session: Session, guard: Guard) -> str:
    """Return the notice of a guard that cannot be scored; see `may_run`."""
    if session.tasks.get(guard.name, guard.version).scorer["name"] == HARNESS:
        return f"guard {guard.name} is not scored: its task of lm-evaluation-harness needs pip install 'perdure[eval]'"
    return not_run(f"guard {guard.name}")


def not_run_guards(session: Session, budget: Budget = "learn") -> list[str]:
    """Return notices of the guards of a budget that cannot be scored."""
    guards = [guard for guard in session.ledger.guards() if items_of(guard, budget) and not may_run(session, guard)]
    return [left_out(session, guard) for guard in guards]


def items_of(guard: Guard, budget: Budget) -> int:
    """Return how many items of a guard a budget scores."""
    if isinstance(budget, str):
        return guard.items.of(budget)
    return boundary(budget.get(guard.name, 0), budgets_of(guard), guard.items.full)


def score_guard(session: Session, guard: Guard, entry: Entry, n: int, tick: Tick | None = None) -> Scored:
    """Return the score of the first n rows of a guard at an entry, or of more: the stored one, extended by what is missing.

    The model answers as for a request without a task.
    """
    ledger, task = session.ledger, session.tasks.get(guard.name, guard.version)
    state = ledger.seen(entry, None)
    stored = ledger.score(state, guard.score_version, task.scoring)
    known = set(stored.rows) if stored else set()
    done = sum(row.hash in known for row in task.test)  # the first ones, also where a row was deleted since
    n = min(n, len(task.test))
    if stored is not None and done >= n:
        return Scored(stored)
    session.load(entry)
    found, seconds = stored, 0.0
    notices: list[str] = []
    for piece in pieces(done, n, budgets_of(guard)):
        new = _piece(session, guard, entry, task, piece, tick)
        seconds += new.score.seconds
        notices += new.notices
        found = new.score if found is None else _joined(found, new.score)
        ledger.extend_score(state, guard.score_version, found, task.scoring, rows=len(task.test))
    session.runtime.release()
    assert found is not None  # noqa: S101  # n is above 0, so there was a piece
    return Scored(found, seconds, tuple(dict.fromkeys(notices)))


def _piece(session: Session, guard: Guard, entry: Entry, task: TaskData, piece: range, tick: Tick | None) -> Measured:
    if task.scorer["name"] == SAME:
        return drift_piece(session, guard, entry, task, piece, tick)
    if task.scorer["name"] == HARNESS:
        return harness_piece(session, task, piece, tick)
    prompts, code = session.tasks.prompts(task, session.tokenizer), partial(trusted_text, session.ledger.root)
    return measure(session.runtime, task, tick, prompts=prompts, only=piece, code=code, run_code=session.run_code)


def _joined(first: Score, second: Score) -> Score:
    """Return the score over the items of two pieces."""
    return score_record(
        first.scorer,
        [*first.items, *second.items],
        [*first.predictions, *second.predictions],
        [*first.rows, *second.rows],
        first.seconds + second.seconds,
        {name: [*values, *more] for name, values in first.readings.items() if (more := second.readings.get(name))},
    )


def _paired(
    session: Session, guard: Guard, entry: Entry, before: Scored, now: Scored, n: int, edited: Collection[str]
) -> MeasuredGuard | None:
    """Return the guard's scores over the same first n rows, less what leaked or asks an edited fact; None if none is left."""
    test = session.tasks.get(guard.name, guard.version).test[:n]
    leaked = leaked_rows(session.ledger, entry, test)
    changed = edited_rows(session.ledger, entry, test, edited) - leaked
    rows = tuple(row for row in test if row.hash not in leaked | changed)
    hashes = [row.hash for row in rows]
    then, present = over_rows(before.score, hashes), over_rows(now.score, hashes)
    if then is None or present is None:
        return None
    notices = dict.fromkeys((*before.notices, *now.notices))
    if leaked:
        left_out = (
            f"{len(leaked)} of {counted(len(test), 'item')} left out, as a train row or a row in memory asks the same"
        )
        notices[f"guard {guard.name}: {left_out}"] = None
    if changed:
        notices[
            f"guard {guard.name}: {len(changed)} of {counted(len(test), 'item')} left out, as the fact was edited"
        ] = None
    return MeasuredGuard(
        guard, rows, then, present, len(leaked | changed), round(before.seconds + now.seconds, 3), tuple(notices)
    )


def budgets_of(guard: Guard) -> tuple[int, ...]:
    """Return the budgets of a guard, which are boundaries of its pieces."""
    items = guard.items
    return items.learn, items.quick, items.standard, items.full
