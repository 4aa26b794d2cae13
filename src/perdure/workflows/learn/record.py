"""Record: one ledger entry with the results of the learn, or the candidate of a failed gate."""

import platform
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from perdure.core.records import Record, omitted
from perdure.evaluate.routing import RoutingAccuracy
from perdure.evaluate.subset import over_rows
from perdure.ledger.records import GateOff, LearnRecord, NewTaskKl, Repair, Resources, RowCounts, ScoreSummary, Verdict
from perdure.ledger.runs import START
from perdure.workflows.fact_records import NOTE
from perdure.workflows.guards.judge import skipped_note
from perdure.workflows.learn.draft import Draft
from perdure.workflows.learn.effects import crowded, faint, idle, unmoved
from perdure.workflows.learn.judge import Judged, learned_by
from perdure.workflows.learn.prepare import Prepared
from perdure.workflows.learn.run import Run
from perdure.workflows.learn.train import Trained
from perdure.workflows.routed_scores import routing_at
from perdure.workflows.session import Scored

if TYPE_CHECKING:
    from perdure.bridges.peak_memory import PeakMemory


@dataclass(frozen=True)
class EarlierScore(Record):
    """A score of a task at an entry before head.

    Args:
        entry: Id of the entry.
        score: The score there, over the test rows that are scored now.
    """

    entry: str
    score: ScoreSummary


@dataclass(frozen=True)
class LearnResult(Record):
    """What `learn --json` prints.

    Args:
        entry: Id of the entry, or of the candidate.
        task: The task that was learned.
        train_seconds: Wall time of training, of all processes together.
        train_cpu_seconds: The processor's seconds of it.
        eval_seconds: Wall time of scoring.
        tokens: Tokens that ran forward in training.
        gate: What the gate decided.
        scores: Of every task, now.
        before: Of the task that was learned, at "base" and at "head".
        moved: Whether head moved to the entry.
        warnings: What the user should know.
        resources: Time and memory.
        earlier: Of each other task that was not scored at head before the learn: the score, by the entry that learned it, which
            the gate compares with.
        repair: How the update was scaled down after the gate had refused it; None where it was not.
        routed: Of every task where no request names its task; None without a router.
        routing: How many test rows found their task; None without a router.
    """

    entry: str
    task: str
    train_seconds: float
    train_cpu_seconds: float
    eval_seconds: float
    tokens: int
    gate: Verdict | GateOff
    scores: Mapping[str, ScoreSummary]
    before: Mapping[str, ScoreSummary]
    moved: bool
    warnings: tuple[str, ...]
    resources: Resources
    earlier: Mapping[str, EarlierScore] | None = omitted(None)
    repair: Repair | None = omitted(None)
    routed: Mapping[str, ScoreSummary] | None = omitted(None)
    routing: RoutingAccuracy | None = omitted(None)


def record(
    run: Run,
    prepared: Prepared,
    trained: Trained,
    draft: Draft,
    judged: Judged,
    peak: "PeakMemory",
    on_new_task: NewTaskKl | None = None,
) -> LearnResult:
    """Record the draft and move head to it, or put it aside where the gate refuses it.

    Args:
        run: The learn.
        prepared: What it started from.
        trained: What it trained.
        draft: The entry.
        judged: Its scores and verdict.
        peak: The most memory so far.
        on_new_task: KL from the base on the new task's prompts, where it was measured.
    """
    from perdure.train.adapter_start import copied_by

    ledger, task = run.session.ledger, run.plan.task
    resources = _resources(run, trained, peak)
    learned = LearnRecord(
        **vars(trained.learner.record.frozen),
        train_seconds=trained.seconds,
        train_cpu_seconds=trained.cpu_seconds,
        eval_seconds=round(run.clock.scored, 3),
        updates=trained.learner.ended,
        gate=judged.verdict,
        settings=run.plan.recipe.to_json(),
        warnings=tuple(_warnings(run, prepared, trained, draft, judged)),
        resources=resources,
        new_task_kl=on_new_task,
        copied=copied_by(run.folder / START),
    )
    notes = {
        "record": learned,
        "evidence": judged.evidence,
        "memory": RowCounts(len(draft.memory.rows), dict(Counter(own.task for own in draft.memory.rows))),
        "software": {name: version(name) for name in ("perdure", "torch", "transformers", "peft")},
        "machine": {"python": platform.python_version(), "processor": platform.machine()},
        **run.signature.notes,
        **skipped_note(ledger, run.guards),
        **({NOTE: draft.carried.note.to_json()} if draft.carried else {}),
    }
    if judged.failed:
        ledger.put_candidate(draft.entry, notes)
    else:
        ledger.record(draft.entry, notes, why=f"learn {task.name}")
    shutil.rmtree(run.folder, ignore_errors=True)
    untracked = _track(run, trained, draft, judged)
    return LearnResult(
        entry=draft.entry.id,
        task=task.name,
        train_seconds=learned.train_seconds,
        train_cpu_seconds=learned.train_cpu_seconds,
        eval_seconds=learned.eval_seconds,
        tokens=learned.tokens,
        gate=learned.gate,
        scores=_briefly(judged.scores),
        before=_briefly(prepared.before),
        moved=not judged.failed,
        warnings=(*learned.warnings, *untracked),
        resources=resources,
        earlier=_earlier(run, judged) or None,
        routed={name: score.summary for name, score in judged.routed.items()} or None,
        routing=routing_at(ledger, draft.entry, judged.routed),
    )


def _earlier(run: Run, judged: Judged) -> dict[str, EarlierScore]:
    """Return the scores that the gate compares with, of the tasks that were not scored at head before the learn."""
    ledger, parent = run.session.ledger, run.plan.parent
    found: dict[str, EarlierScore] = {}
    for name, scored in judged.learned.items():
        if ledger.score(ledger.seen(parent, name), parent.tasks[name]) is None:
            score = over_rows(scored.score, judged.scores[name].score.rows)
            if score:
                found[name] = EarlierScore(learned_by(run, name).id, score.summary)
    return found


def _resources(run: Run, trained: Trained, peak: "PeakMemory") -> Resources:
    """Return time and memory of a learn."""
    stages, tokens = run.clock.stages, trained.learner.record.tokens
    updates = stages.get("updates", 0.0)
    return Resources(
        {name: round(seconds, 3) for name, seconds in stages.items()},
        peak.mib,
        peak.of,
        round(tokens / updates, 1) if updates and tokens else None,
    )


def _track(run: Run, trained: Trained, draft: Draft, judged: Judged) -> list[str]:
    """Add the row of the matrix and the entry's id to the runs in trackers; return warnings of those that failed."""
    from perdure.bridges.trackers import Outcome

    if trained.tracking is None:
        return []
    learns = 1 + sum(entry.kind == "learn" for entry in run.session.ledger.ancestors(run.plan.parent))
    scores = {f"eval/{name}/{scored.score.scorer}": scored.score.score for name, scored in judged.scores.items()}
    scores |= {
        f"eval/guard/{name}/{what}": value
        for name, one in judged.guards.items()
        for what, value in {one.now.scorer: one.now.score, **one.readings}.items()
    }
    return trained.tracking.report(Outcome(draft.entry.id, judged.verdict.verdict, learns, scores))


def _warnings(run: Run, prepared: Prepared, trained: Trained, draft: Draft, judged: Judged) -> list[str]:
    """Return the warnings of the whole learn; those of scoring each once."""
    task, learner = run.plan.task.name, trained.learner
    now = judged.scores.get(task)
    scored = (*prepared.before.values(), *judged.scores.values(), *judged.learned.values())
    return [
        *run.plan.notices,
        *prepared.notices,
        *draft.notices,
        *judged.notices,
        *dict.fromkeys(text for one in scored for text in one.notices),
        *(draft.carried.warnings if draft.carried else ()),
        *idle(run.plan, learner),
        *crowded(learner),
        *faint(learner),
        *learner.notices,
        *(_unmoved(run, prepared, now) if now else ()),
    ]


def _unmoved(run: Run, prepared: Prepared, now: Scored) -> list[str]:
    """Return a warning where the score of the task that was learned did not rise."""
    called, before = run.session.ledger.shown_name(run.plan.task.name), prepared.before["head"].score
    return unmoved(called, before, now.score, trained=run.plan.recipe.trains)


def _briefly(scores: Mapping[str, Scored]) -> dict[str, ScoreSummary]:
    return {name: scored.score.summary for name, scored in scores.items()}
