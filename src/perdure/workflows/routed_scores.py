"""Scores of requests that do not name their task: each test row is answered where the router sends it.

The score of a task with its name known has the answers of its own view. A row that the router sends to a view of the same weights
takes its item from there. The other rows are answered under the view they were sent to, once: where a later entry sends a row
to the same weights, its answer is that of the entry before. So a routed score costs few answers. Its rows are not in the batches
of a run that answers all of them, so that an answer on the edge may differ.
"""

from collections.abc import Container, Iterable, Mapping, Sequence

from perdure.core.progress import Tick
from perdure.data.sample import sample_of
from perdure.data.task import TaskData
from perdure.evaluate.routing import RoutingAccuracy, routing_accuracy
from perdure.evaluate.scorers import score_record
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Score
from perdure.workflows.routing import routed_rows, routes
from perdure.workflows.session import Session

SENT = "sent"  # reading of a routed score: index of the task among the sorted tasks of the router; -1 for no task


def routed_scores(
    session: Session, entry: Entry, tasks: Iterable[TaskData], tick: Tick | None = None, most: int | None = None
) -> dict[str, Score]:
    """Return the score of each task where no request names it, in the order of learning; nothing without a router.

    For the arguments see `score_routed`.
    """
    if not routes(session.ledger, entry):
        return {}
    learned = [name for one in reversed(session.ledger.ancestors(entry)) for name in one.tasks]
    in_order = sorted(tasks, key=lambda task: learned.index(task.name))
    return {task.name: score_routed(session, entry, task, tick, most) for task in in_order}


def score_routed(
    session: Session, entry: Entry, task: TaskData, tick: Tick | None = None, most: int | None = None
) -> Score:
    """Return the score of `task` at `entry` where no request names it: the stored one, else the one measured and stored now.

    Each row keeps the template of its own task. A row near no task goes through what all tasks share, as does every row where no
    task was learned with a router.

    Args:
        session: Of the workspace.
        entry: An entry or a draft.
        task: The task.
        tick: Called with (what, done, total) as work goes on.
        most: A smaller number of test rows than the task is scored on.
    """
    ledger, own = session.ledger, session.score(entry, task, tick, most).score
    state = ledger.state(entry)
    if state == ledger.seen(entry, task.name):  # nothing is isolated, and all requests go through the same weights
        return own
    stored = ledger.score(state, task.version, task.scoring)
    if stored is not None and stored.n >= own.n:
        return stored
    composed = _composed(session, entry, task, own, tick)
    ledger.put_score(state, task.version, composed, task.scoring, sample=own.n < len(task.test))
    return composed


def routing_at(ledger: Ledger, entry: Entry, scores: Mapping[str, Score | None]) -> RoutingAccuracy | None:
    """Return how well requests find their task at an entry, from its routed scores; None without a router or a score.

    Args:
        ledger: The ledger.
        entry: The entry.
        scores: Routed score of each task, where measured.
    """
    return routing_accuracy(sent_to(ledger, entry, scores))


def sent_to(ledger: Ledger, entry: Entry, scores: Mapping[str, Score | None]) -> dict[str, list[str | None]]:
    """Return the task that each row was sent to, by task that the router knows; for the arguments see `routing_at`."""
    tasks = sorted(routes(ledger, entry))
    return {
        name: [tasks[int(k)] if k >= 0 else None for k in score.readings[SENT]]
        for name, score in scores.items()
        if name in tasks and score is not None and SENT in score.readings
    }


def _composed(session: Session, entry: Entry, task: TaskData, own: Score, tick: Tick | None) -> Score:
    """Return the score made of the items of `own`, and of new answers to the rows that are sent to other weights."""
    ledger, tasks = session.ledger, sorted(routes(session.ledger, entry))
    every = [one.task for one in routed_rows(session, entry, task, tick)] if tasks else [None] * len(task.test)
    rows = sample_of(task.test, own.n, task.spec.seed) if own.n < len(task.test) else range(len(task.test))
    sent = [every[row] for row in rows]
    seen = ledger.seen_by(entry, {task.name, *sent})
    items, texts, seconds = list(own.items), list(own.predictions), 0.0
    before = _answers_before(ledger, entry, task)
    known = {k: before[own.rows[k], seen[sent[k]]] for k in range(len(sent)) if (own.rows[k], seen[sent[k]]) in before}
    for k, (item, text) in known.items():
        items[k], texts[k] = item, text
    for view, places in _elsewhere(sent, seen, task.name, known).items():
        scored = session.measure_under(entry, view, task, [rows[k] for k in places], tick).score
        seconds += scored.seconds
        for k, item, text in zip(places, scored.items, scored.predictions, strict=True):
            items[k], texts[k] = item, text
    readings = {SENT: tuple(float(tasks.index(one)) if one is not None else -1.0 for one in sent)}
    return score_record(own.scorer, items, texts, list(own.rows), seconds, readings)


def _answers_before(ledger: Ledger, entry: Entry, task: TaskData) -> dict[tuple[str, str], tuple[float, str]]:
    """Return item and answer of each row at the entry before, by the row's hash and the hash of the view that answered it."""
    parent = ledger.entry(entry.parent) if entry.parent else None
    score = ledger.score(ledger.state(parent), task.version, task.scoring) if parent else None
    if parent is None or score is None or SENT not in score.readings:
        return {}
    tasks = sorted(routes(ledger, parent))
    sent = [tasks[int(k)] if k >= 0 else None for k in score.readings[SENT]]
    seen = ledger.seen_by(parent, set(sent))
    rows = zip(score.rows, sent, score.items, score.predictions, strict=True)
    return {(row, seen[target]): (item, text) for row, target, item, text in rows}


def _elsewhere(
    sent: Sequence[str | None], seen: Mapping[str | None, str], task: str, known: Container[int]
) -> dict[str | None, list[int]]:
    """Return the places of the rows, without those of `known`, that go through other weights than the task's own.

    They are named by a task of these weights.
    """
    first: dict[str, str | None] = {}
    places: dict[str | None, list[int]] = {}
    for k, target in enumerate(sent):
        if seen[target] != seen[task] and k not in known:
            places.setdefault(first.setdefault(seen[target], target), []).append(k)
    return places
