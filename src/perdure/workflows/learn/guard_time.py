"""What the guards of a workspace add to a learn: items, and seconds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perdure.core.canonical import content_hash
from perdure.core.files import write_text
from perdure.core.progress import Tick
from perdure.ledger import Entry
from perdure.ledger.records import Guard, Score
from perdure.workflows.cached import cached
from perdure.workflows.guards.attach import Mode
from perdure.workflows.guards.measure import items_of, may_run
from perdure.workflows.learn.plan import Plan
from perdure.workflows.learn.scoring_time import scoring_seconds
from perdure.workflows.session import Session


@dataclass(frozen=True)
class GuardTime:
    """What guards add to a learn.

    Args:
        items: Number of items that are scored: at the new entry, and at the reference of each guard where they are missing.
        seconds: Seconds that they take.
    """

    items: int = 0
    seconds: float = 0.0


def guard_time(
    session: Session, planned: Plan, mode: Mode, machine: Sequence[Any], tick: Tick | None = None
) -> GuardTime:
    """Return what the guards add to a learn; nothing where none is scored. The ledger stays as it is.

    Seconds a row are those of the reference's score. Where it has none, a batch is measured at the base, and the result is stored
    in the cache.

    Args:
        session: Of the workspace.
        planned: The learn.
        mode: What a guard that falls does.
        machine: What decides the seconds that a row of a guard takes.
        tick: Called with (what, done, total).
    """
    guards = [one for one in session.ledger.guards() if items_of(one, "learn") and may_run(session, one)]
    items, seconds = 0, 0.0
    for done, guard in enumerate(guards if mode != "none" else (), start=1):
        n = _missing(session, guard, planned)
        items += n
        seconds += n * _seconds_a_row(session, guard, machine) if n else 0.0
        if tick:
            tick("measuring guards", done, len(guards))
    return GuardTime(items, round(seconds, 1))


def _missing(session: Session, guard: Guard, planned: Plan) -> int:
    """Return the number of items that a learn scores of a guard, at its reference and at the new entry."""
    n, ledger = items_of(guard, "learn"), session.ledger
    reference = ledger.entry(guard.reference)
    missing = max(n - _scored(session, guard, reference), 0)
    if planned.recipe.trains:
        return missing + n
    here = planned.parent  # whose weights the new entry has
    same = ledger.seen(here, None) == ledger.seen(reference, None)
    return missing + (0 if same else max(n - _scored(session, guard, here), 0))


def _scored(session: Session, guard: Guard, entry: Entry) -> int:
    score = _stored(session, guard, entry)
    return score.n if score else 0


def _stored(session: Session, guard: Guard, entry: Entry) -> Score | None:
    task = session.tasks.get(guard.name, guard.version)
    return session.ledger.score(session.ledger.seen(entry, None), guard.score_version, task.scoring)


def _seconds_a_row(session: Session, guard: Guard, machine: Sequence[Any]) -> float:
    stored = _stored(session, guard, session.ledger.entry(guard.reference))
    if stored:
        return stored.seconds / stored.n
    file = cached(session, "estimates") / f"{content_hash(['guard', guard.version, *machine])}.json"
    try:
        return float(json.loads(file.read_text())["seconds_a_row"])
    except (OSError, ValueError, LookupError, TypeError):  # not measured yet, or cut off
        n = items_of(guard, "learn")
        session.load(session.ledger.resolve("base"))
        seconds = scoring_seconds(session, session.tasks.get(guard.name, guard.version), n) / n
        session.runtime.release()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"seconds_a_row": seconds}) + "\n")
        return seconds
