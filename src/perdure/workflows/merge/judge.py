"""Judge a merge: each task's score at head, as requests go there, against its score through the merged adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perdure.core.progress import Tick
from perdure.evaluate.evidence import GuardedTask, make_evidence
from perdure.evaluate.routing import RoutingAccuracy
from perdure.ledger import Entry
from perdure.ledger.records import Evidence, Gate, GateOff, Score, Verdict
from perdure.workflows.edit.carry import Carried
from perdure.workflows.guards.attach import Mode
from perdure.workflows.guards.judge import gate_with, guard_items, guard_notices, guard_warnings
from perdure.workflows.guards.measure import measure_guards
from perdure.workflows.routed_scores import routed_scores, routing_at
from perdure.workflows.session import Scored, Session
from perdure.workflows.unscored import without_unrun


@dataclass(frozen=True)
class Judged:
    """The scores of a merge, and the verdict of the gate.

    Args:
        before: Of each task at head.
        scores: Of each task through the merged adapter.
        evidence: What the gate judged; None where it was switched off.
        notices: What the user should know.
        routed: Of every task that head knows, at the merge, where no request names its task; nothing without a router.
        routing: How many test rows found their task; None without a router.
    """

    before: Mapping[str, Scored] = field(default_factory=dict)
    scores: Mapping[str, Scored] = field(default_factory=dict)
    evidence: Evidence | None = None
    notices: tuple[str, ...] = ()
    routed: Mapping[str, Score] = field(default_factory=dict)
    routing: RoutingAccuracy | None = None

    @property
    def verdict(self) -> Verdict | GateOff:
        """The verdict."""
        return self.evidence.verdict if self.evidence else GateOff()

    @property
    def failed(self) -> bool:
        """Whether the gate refuses the merge."""
        return self.verdict.verdict == "fail"


def judge(
    session: Session,
    entry: Entry,
    head: Entry,
    tasks: Sequence[str],
    carried: Carried | None,
    *,
    gate: Gate | None,
    mode: Mode,
    tick: Tick,
) -> Judged:
    """Score the tasks before and after, and return the verdict of the gate.

    Args:
        session: Of the workspace.
        entry: The merge, its objects stored.
        head: The entry that it was made on.
        tasks: Tasks that go through the merged adapter.
        carried: The facts in force on it.
        gate: The rule; None scores and refuses nothing.
        mode: What a guard that fell does.
        tick: Called with (what, done, total); raises Interrupted where a signal came.
    """
    data = {name: session.task(name, head) for name in tasks}
    bare = tuple(
        f"task {name} has no test rows left, as they were deleted; it is neither scored nor guarded"
        for name, task in data.items()
        if not task.test
    )
    data = {name: task for name, task in data.items() if task.test}
    data, before_unrun = without_unrun(session, head, data)
    data, after_unrun = without_unrun(session, entry, data, shared=True)
    bare += before_unrun + after_unrun
    before = {name: session.score(head, task, tick) for name, task in data.items()}
    scores = {name: session.score(entry, task, tick, shared=True) for name, task in data.items()}
    about = tuple(dict.fromkeys(text for one in (*before.values(), *scores.values()) for text in one.notices))
    every = [session.task(name, entry) for name in entry.tasks]
    routed = routed_scores(session, entry, [task for task in every if task.test], tick)
    routing = routing_at(session.ledger, entry, routed)
    if gate is None:
        return Judged(before, scores, None, (*bare, *about), routed, routing)
    guarded = {name: GuardedTask(head.tasks[name], before[name].score, scores[name].score) for name in data}
    measured = measure_guards(session, entry, tick=tick) if mode != "none" and session.ledger.guards() else {}
    facts = carried.facts if carried else ()
    left_out = [name for name in tasks if name not in data]
    evidence = make_evidence(gate_with(gate, mode), "", guarded, facts, left_out, guard_items(measured))
    of_guards = (
        *(guard_notices(session, measured) if mode != "none" else ()),
        *guard_warnings(evidence.verdict.guards),
    )
    return Judged(before, scores, evidence, (*bare, *about, *of_guards), routed, routing)
