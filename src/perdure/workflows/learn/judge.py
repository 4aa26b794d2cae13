"""Judge: score the drafted entry on every task, and apply the gate."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from perdure.core.errors import NotFound
from perdure.evaluate.evidence import GuardedTask, make_evidence
from perdure.ledger import Entry
from perdure.ledger.records import Evidence, Gate, GateOff, Score, Verdict
from perdure.workflows.guards.judge import gate_with, guard_items, guard_notices, guard_warnings
from perdure.workflows.guards.measure import MeasuredGuard
from perdure.workflows.learn.draft import Draft
from perdure.workflows.learn.run import Run
from perdure.workflows.session import Scored
from perdure.workflows.unscored import without_unrun


@dataclass(frozen=True)
class Judged:
    """The scores of the drafted entry, and the verdict of the gate.

    Args:
        scores: Of every task, at the draft.
        learned: Of the guarded tasks, at the entry that learned each.
        evidence: What the gate judged; None where it was switched off.
        verdict: The verdict.
        notices: Notices for the user.
        guards: The guards, at their references and at the draft.
        routed: Of every task at the draft where no request names its task; nothing without a router.
    """

    scores: Mapping[str, Scored]
    learned: Mapping[str, Scored]
    evidence: Evidence | None
    verdict: Verdict | GateOff
    notices: tuple[str, ...]
    guards: Mapping[str, MeasuredGuard] = field(default_factory=dict)
    routed: Mapping[str, Score] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the gate refuses the entry."""
        return self.verdict.verdict == "fail"


def judge(run: Run, draft: Draft, gate: Gate | None, scored: Collection[str] | None = None) -> Judged:
    """Score tasks at the drafted entry, and return the verdict of the gate.

    Args:
        run: The learn.
        draft: The drafted entry.
        gate: What may not be lost; None accepts every entry.
        scored: Names of the tasks to score, where there is no gate; None scores every task.

    Raises:
        Interrupted: A signal came while a task was scored.
    """
    plan, entry = run.plan, draft.entry
    tasks = {name: plan.task if name == plan.task.name else run.session.task(name, entry) for name in entry.tasks}
    notices = tuple(
        f"task {name} has no test rows left, as they were deleted; it is neither scored nor guarded"
        for name, task in tasks.items()
        if not task.test
    )
    wanted = {name: task for name, task in tasks.items() if task.test and (scored is None or name in scored)}
    wanted, unrun = without_unrun(run.session, entry, wanted)
    notices += unrun
    scores = {name: run.score(entry, task) for name, task in wanted.items()}
    routed = run.score_routed(entry, wanted.values())
    if gate is None:
        return Judged(scores, {}, None, GateOff(), notices, routed=routed)
    learned = _when_learned(run, scores)
    guarded: dict[str, GuardedTask] = {}
    for name in (plan.task.name, *learned):  # the new task has nothing to lose yet, unless this is an update
        then = learned[name].score if name in learned else None
        guarded[name] = GuardedTask(entry.tasks[name], then, scores[name].score)
    unguarded = [name for name in plan.parent.tasks if name not in guarded]
    facts = draft.carried.facts if draft.carried else ()
    guards = run.score_guards(entry)
    rule = gate_with(gate, run.guards)
    evidence = make_evidence(rule, plan.task.name, guarded, facts, unguarded, guard_items(guards))
    about = (
        *(guard_notices(run.session, guards) if run.guards != "none" else ()),
        *guard_warnings(evidence.verdict.guards),
    )
    return Judged(scores, learned, evidence, evidence.verdict, (*notices, *about), guards, routed)


def _when_learned(run: Run, scores: Mapping[str, Scored]) -> dict[str, Scored]:
    """Return the score of each guarded task at the entry that learned it last."""
    plan, scored = run.plan, {}
    wanted = plan.task.spec.guard
    for name in plan.parent.tasks:
        if name in scores and (wanted is None or name in wanted or name == plan.task.name):
            entry = learned_by(run, name)
            scored[name] = run.score(entry, run.session.task(name, entry))
    return scored


def learned_by(run: Run, task: str) -> Entry:
    """Return the entry that learned a task of head last."""
    entry = run.session.ledger.last_learn(run.plan.parent, task)
    if entry is None:
        raise NotFound(f"no entry before head learned task {task!r}; 'perdure verify' lists what is wrong")
    return entry
