"""Repair before refusal: of a learn that its gate refused, the largest share of the same update that passes the gate.

The share is of the whole update, or of its intruder directions, which are taken for what forgets most.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from perdure.core.errors import BadInput, Interrupted
from perdure.core.progress import Tick
from perdure.core.slots import EDITS
from perdure.evaluate.evidence import judged_anew
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Evidence, LearnRecord, Repair, Resources, Score, ScoreSummary, TriedScale
from perdure.workflows.author import sign
from perdure.workflows.edit.carry import Carried, carry
from perdure.workflows.fact_records import NOTE
from perdure.workflows.guards.judge import guard_warnings
from perdure.workflows.guards.measure import measure_guards
from perdure.workflows.inspect.log import candidate_line
from perdure.workflows.learn.intruders import reduction
from perdure.workflows.learn.record import LearnResult
from perdure.workflows.learn.scaled import scaled_slots, scaled_state
from perdure.workflows.session import Session
from perdure.workflows.signals import stop_signal
from perdure.workflows.unscored import without_unrun

By = Literal["scale", "intruders"]
SCALES = (0.8, 0.6, 0.4, 0.2)
SHARES = (0.75, 0.5, 0.25, 0.0)  # of intruder directions


@dataclass(frozen=True)
class Candidate:
    """The candidate of a failed gate, with what was noted of it."""

    entry: Entry
    record: LearnRecord
    evidence: Evidence


@dataclass(frozen=True)
class _Judged:
    """A scaled update: its entry, its scores and the evidence on it."""

    scale: float
    entry: Entry
    scores: Mapping[str, Score]
    evidence: Evidence
    carried: Carried | None

    @property
    def line(self) -> TriedScale:
        verdict = self.evidence.verdict
        means = {name: score.score for name, score in self.scores.items()}
        return TriedScale(self.scale, verdict.verdict, verdict.reason, means)


def repair(
    session: Session,
    *,
    by: By = "scale",
    scales: Sequence[float] | None = None,
    tick: Tick | None = None,
    message: str | None = None,
) -> LearnResult:
    """Scale the update of the waiting candidate down until it passes its gate, and move head there.

    Nothing is trained. The scales are tried from the largest to the smallest, and the first that passes the candidate's own gate
    becomes an entry of its own; the candidate is then discarded. Where none passes, that is the largest on which the gate is
    inconclusive, with a warning that it is not proven. If the gate refuses all, the candidate waits as before. Scores are stored
    as they come, so that a repair that is stopped goes on where it was.

    Every scale is judged on the same test rows. The chosen one is the best of a few looks, so that its loss is a little larger
    than it seems; the verdict has no correction for that.

    Args:
        session: Of the workspace.
        by: "scale" scales the whole update, "intruders" its intruder directions alone (see `maths.intruders`).
        scales: Shares that are left, each at most 1, and above 0 where the whole update is scaled; None for the usual ones.
        tick: Called with (what, done, total) as work goes on.
        message: Text to store with the entry and its author; None takes those of the learn.

    Raises:
        Busy: Another process writes to the workspace.
        Interrupted: A signal came.
        BadInput: No candidate waits, head moved since, or its update cannot be scaled; the message names the reason.
    """
    if by not in get_args(By):
        raise BadInput(f"a repair by {by!r} is not known; it is by {' or '.join(get_args(By))}")
    scales = (SCALES if by == "scale" else SHARES) if scales is None else scales
    if not scales or not all(0 <= scale <= 1 and (scale or by == "intruders") for scale in scales):
        raise BadInput(f"scales are {', '.join(map(str, scales)) or 'none'}; give shares above 0 and at most 1, as 0.5")
    with session.writing(), stop_signal() as stop:
        began, candidate, report = time.perf_counter(), _waiting(session), _reporting(tick, stop)
        made = _reduction(session, candidate, by, report)
        tried: list[_Judged] = []
        for scale in sorted(set(scales), reverse=True):
            tried.append(_judge(session, candidate, scale, made, report))
            if tried[-1].line.verdict == "pass":
                break
        return _concluded(session, candidate, tried, made, began, message)


@dataclass(frozen=True)
class _Made:
    """How the update is made smaller.

    Args:
        by: Of what the share is.
        slots: Stores the update with a share left, and returns the slots that it leaves.
        state: The object with the methods' state that holds beside it.
        notices: What the user should know of that state.
        directions: Intruder directions, where the share is of these.
    """

    by: By
    slots: Callable[[float], dict[str, str | None]]
    state: str | None
    notices: tuple[str, ...]
    directions: int = 0


def _reduction(session: Session, candidate: Candidate, by: By, report: Tick) -> _Made:
    ledger, entry = session.ledger, candidate.entry
    if by == "scale":
        return _Made(by, partial(scaled_slots, ledger, entry), *scaled_state(ledger, entry))
    found = reduction(session, entry, report)  # the adapter stays, and with it all that was measured of it
    return _Made(by, found.slots, entry.state, (), found.count)


def _waiting(session: Session) -> Candidate:
    """Return the waiting candidate.

    Raises:
        BadInput: There is none, or head is no longer its parent, or it was through no gate.
    """
    ledger = session.ledger
    entry = ledger.candidate()
    if entry is None:
        raise BadInput("no candidate waits; --repair without a task scales the update of a learn that its gate refused")
    if ledger.resolve("head").id != entry.parent:
        raise BadInput("head moved since the candidate was learned; 'perdure discard' it and learn again")
    if entry.kind != "learn":
        raise BadInput(
            f"the candidate is a {entry.kind}, and --repair scales what a learn trained; 'perdure accept' or 'perdure discard' "
            "it, or merge again with a higher --rank or --distill-epochs"
        )
    record, evidence = ledger.note(entry.id, "record", LearnRecord), ledger.note(entry.id, "evidence", Evidence)
    if record is None or evidence is None:
        raise BadInput("the candidate has no evidence of a gate; 'perdure accept' or 'perdure discard' it")
    return Candidate(entry, record, evidence)


def _reporting(tick: Tick | None, stop: Callable[[], str | None]) -> Tick:
    def report(what: str, done: int, total: int) -> None:
        if signal := stop():
            raise Interrupted(f"stopped by {signal} while {what}; 'perdure learn --repair' goes on")
        if tick:
            tick(what, done, total)

    return report


def _judge(session: Session, candidate: Candidate, scale: float, made: _Made, report: Tick) -> _Judged:
    """Score the scaled update on all tasks, and judge it by the candidate's gate."""
    ledger, evidence = session.ledger, candidate.evidence
    slots = made.slots(scale)
    carried = carry(session, ledger.entry(str(candidate.entry.parent)), slots, report)
    if carried and carried.slot:
        slots[EDITS] = carried.slot
    entry = replace(candidate.entry, slots=slots, state=made.state, data={**candidate.entry.data, made.by: scale})
    tasks = {name: task for name in entry.tasks if (task := session.task(name, entry)).test}
    judged = {
        name: task for name, task in tasks.items() if name in evidence.tasks
    }  # on every one of them, or not at all
    others, _ = without_unrun(session, entry, {name: tasks[name] for name in tasks.keys() - judged.keys()})
    scores = {name: session.score(entry, task, report).score for name, task in (judged | others).items()}
    guards = _guards(session, entry, evidence, report)
    facts = carried.facts if carried else ()
    return _Judged(scale, entry, scores, judged_anew(evidence, scores, facts, guards), carried)


def _guards(session: Session, entry: Entry, evidence: Evidence, report: Tick) -> dict[str, Score]:
    """Return the score of each guard of the evidence, in its budget there.

    Raises:
        BadInput: One of them cannot be scored: the workspace has it no longer, or its programs may not run.
    """
    scores: dict[str, Score] = {}
    for budget in sorted({items.budget for items in evidence.guards.values()}):
        names = [name for name, items in evidence.guards.items() if items.budget == budget]
        measured = measure_guards(session, entry, budget, names=names, tick=report)
        if missing := [name for name in names if name not in measured]:
            raise BadInput(
                f"the gate judged guard {missing[0]}, which cannot be scored now; 'perdure discard' the candidate, or add "
                "--run-code where its answers are programs"
            )
        scores |= {name: one.now for name, one in measured.items()}
    return scores


def _concluded(
    session: Session,
    candidate: Candidate,
    tried: Sequence[_Judged],
    made: _Made,
    began: float,
    message: str | None,
) -> LearnResult:
    """Record the largest scale that passes, else the largest that the gate does not refuse, and return the result."""
    ledger, chosen = session.ledger, _chosen(tried)
    lines = tuple(one.line for one in tried)
    repaired = Repair(chosen.scale if chosen else None, lines, made.by, made.directions)
    seconds = round(candidate.record.eval_seconds + time.perf_counter() - began, 3)
    warnings = candidate.record.warnings
    if chosen:  # what the candidate did to the guards does not hold for the scaled update
        stale = guard_warnings(candidate.evidence.verdict.guards)
        warnings = tuple(text for text in warnings if text not in stale)
        if chosen.line.verdict != "pass":
            share = "scaled by" if made.by == "scale" else "with intruder directions scaled by"
            warnings += (
                f"{share} {chosen.scale:g} the update is not proven to lose little enough: none of the shares that were tried "
                "passes the gate, and this is the largest that it does not refuse",
            )
        warnings += (*made.notices, *(chosen.carried.warnings if chosen.carried else ()))
        warnings += guard_warnings(chosen.evidence.verdict.guards)
    record = replace(candidate.record, eval_seconds=seconds, warnings=tuple(dict.fromkeys(warnings)), repair=repaired)
    entry = candidate.entry
    scores: Mapping[str, Score] = _stored(session.ledger, entry, entry.tasks)
    if chosen:
        entry, scores = chosen.entry, chosen.scores
        record = replace(record, gate=chosen.evidence.verdict)
        notes = {**ledger.notes(candidate.entry.id), "record": record, "evidence": chosen.evidence}
        if message is not None:
            notes |= sign(message).notes
        if chosen.carried:
            notes[NOTE] = chosen.carried.note.to_json()
        line = candidate_line(ledger, candidate.entry)
        what = "scaled by" if made.by == "scale" else "intruders scaled by"
        ledger.record(entry, notes, why=f"learn {entry.task}, {what} {chosen.scale:g}")
        ledger.discard(line)
    return LearnResult(
        entry=entry.id,
        task=str(entry.task),
        train_seconds=record.train_seconds,
        train_cpu_seconds=record.train_cpu_seconds,
        eval_seconds=record.eval_seconds,
        tokens=record.tokens,
        gate=record.gate,
        scores={name: score.summary for name, score in scores.items()},
        before=_before(ledger, entry),
        moved=chosen is not None,
        warnings=record.warnings,
        resources=record.resources or Resources({}, 0, "not recorded"),
        repair=repaired,
    )


def _chosen(tried: Sequence[_Judged]) -> _Judged | None:
    """Return the largest scale that passes; without one the largest on which the gate is inconclusive, and None without that."""
    for wanted in ("pass", "inconclusive"):
        for one in tried:
            if one.line.verdict == wanted:
                return one
    return None


def _stored(ledger: Ledger, entry: Entry, versions: Mapping[str, str]) -> dict[str, Score]:
    """Return the stored scores of task versions at an entry."""
    found = {name: ledger.score(ledger.seen(entry, name), version) for name, version in versions.items()}
    return {name: score for name, score in found.items() if score is not None}


def _before(ledger: Ledger, entry: Entry) -> dict[str, ScoreSummary]:
    """Return the scores of the task that was learned at "base" and at "head"."""
    task = str(entry.task)
    places = {"base": ledger.resolve("base"), "head": ledger.entry(str(entry.parent))}
    found = {name: _stored(ledger, at, {task: entry.tasks[task]}).get(task) for name, at in places.items()}
    return {name: score.summary for name, score in found.items() if score is not None}
