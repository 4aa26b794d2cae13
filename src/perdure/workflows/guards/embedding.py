"""The drift reading `embedding`: whether answers mean what the reference's answers mean, by hidden states of the base."""

from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.evaluate.subset import over_rows
from perdure.ledger import Entry
from perdure.ledger.records import Score
from perdure.workflows.guards.measure import MeasuredGuard
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING, UNRELATED = "embedding", "unrelated"  # readings of a score


def with_embedding(session: Session, measured: MeasuredGuard, entry: Entry, tick: Tick | None = None) -> MeasuredGuard:
    """Return a measured drift guard with the readings `embedding` and `unrelated` of each row, which are stored with its score.

    `embedding` is (1 + cos) / 2 of the features of the answer now and of the reference's answer to the same prompt. `unrelated`
    is the mean of that between the answer now and the reference's answers to the other prompts: where the scale begins, since
    hidden states of any two texts are alike. Features are those of `model.text_features`, of the answer without its prompt.

    Args:
        session: Of the workspace; the caller holds its write lock.
        measured: The guard, its scores stored.
        entry: The entry that it was measured at.
        tick: Called with (what, done, total).

    Raises:
        BadInput: The guard has no stored score at the entry.

    Cost: a forward of the base through a third of its blocks for each answer; nothing where the readings are stored.
    """
    if EMBEDDING in measured.now.readings:
        return measured
    ledger, guard = session.ledger, measured.guard
    task = session.tasks.get(guard.name, guard.version)
    states = [ledger.seen(place, None) for place in (ledger.entry(guard.reference), entry)]
    then, now = (ledger.score(state, guard.score_version, task.scoring) for state in states)
    before = None if then is None or now is None else over_rows(then, now.rows)
    if now is None or before is None or len(before.rows) < len(now.rows):
        raise BadInput(f"guard {guard.name} is not scored there; run the checkup again")
    found = replace(now, readings={**now.readings, **_readings(session, before, now, tick)})
    ledger.extend_score(states[1], guard.score_version, found, task.scoring, rows=len(task.test))
    return replace(measured, now=over_rows(found, measured.now.rows) or measured.now)


def _readings(session: Session, before: Score, now: Score, tick: Tick | None) -> dict[str, tuple[float, ...]]:
    """Return both readings of each row of a score."""
    said = dict(zip(before.rows, before.predictions, strict=True))
    then = [said[row].strip() for row in now.rows]
    answers = [text.strip() for text in now.predictions]
    features = _features(session, list(dict.fromkeys([*then, *answers])), tick)
    embedding = tuple(likeness(features[a], features[b]) for a, b in zip(answers, then, strict=True))
    others = [[likeness(features[a], features[b]) for k, b in enumerate(then) if k != i] for i, a in enumerate(answers)]
    return {EMBEDDING: embedding, UNRELATED: tuple(sum(row) / len(row) if row else 0.0 for row in others)}


def _features(session: Session, texts: list[str], tick: Tick | None) -> "dict[str, Tensor | None]":
    """Return the features of texts under the base; None of an empty one."""
    session.uncover_base()
    written = [text for text in texts if text]
    base = session.runtime.base
    on_rows = (lambda done, total: tick("features of answers", done, total)) if tick else None
    found = session.runtime.features([base.text_ids(text) for text in written], on_rows) if written else ()
    session.runtime.release()
    return {**dict.fromkeys(texts), **dict(zip(written, found, strict=True))}


def likeness(a: "Tensor | None", b: "Tensor | None") -> float:
    """Return (1 + cos) / 2 of two feature vectors; of none (an empty answer) 1 with another none, else 0."""
    if a is None or b is None:
        return float(a is b)
    if a is b:
        return 1.0
    first, second = a.double(), b.double()
    cosine = float(first @ second / (first.norm() * second.norm()).clamp_min(1e-12))
    return min(max((1 + cosine) / 2, 0.0), 1.0)
