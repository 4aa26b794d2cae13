"""Score the tasks after an edit or a revert, and compare the scores with those before it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.evaluate.routing import RoutingAccuracy
from perdure.evaluate.subset import over_rows
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import GATE, Gate, GuardItems, Score, ScoreSummary, Verdict
from perdure.workflows.guards.attach import Mode, mode_of
from perdure.workflows.guards.judge import gate_with, guard_items, guard_notices, guard_warnings, skipped_note
from perdure.workflows.guards.measure import measure_guards
from perdure.workflows.routed_scores import routed_scores, routing_at
from perdure.workflows.session import Session
from perdure.workflows.unscored import without_unrun

Rows = Literal["all", "quick", "none"]
SAMPLE = 100  # test rows of each task that "quick" scores


@dataclass(frozen=True)
class Rescore:
    """What is scored after a change, and what a loss does.

    Args:
        rows: "all" scores every test row, or as many as a learn scores, "quick" a sample of each task, "none" nothing.
        strict: Refuse the change if a task lost more than a gate tolerates, or lost and the test rows do not decide how much.
        guards: "warn" of a guard that fell, "enforce" to refuse the change, "none" to score no guard; None takes what the
            workspace says. Where nothing is scored, guards are not either.

    Raises:
        BadInput: `rows` is none of these, or nothing is scored and `strict` has nothing to decide by.
    """

    rows: Rows = "all"
    strict: bool = False
    guards: Mode | None = None

    def __post_init__(self) -> None:
        if self.rows not in get_args(Rows):
            raise BadInput(f"score is {self.rows!r}; it is {', '.join(get_args(Rows))}")
        if self.strict and self.rows == "none":
            raise BadInput(
                "strict refuses an edit by the scores of the tasks; let these be scored, or leave strict out"
            )


@dataclass(frozen=True)
class Rescored:
    """The scores of the tasks at an entry, and before it.

    Args:
        before: By task, the newest score that was measured before the entry, over the test rows that `scores` has.
        scores: By task, at the entry.
        verdict: A gate's verdict on each task's change; None without earlier scores.
        loss: A sentence on the tasks that lost, as `Verdict.losses` counts them, or why guards refuse the change; empty where
            neither.
        refused: The change is to be refused.
        notices: Notices about prompts and answers.
        skipped: What the entry notes where guards were not scored.
        routed: By task, at the entry where no request names its task; nothing without a router, or where the change is refused.
        routing: How many test rows found their task; None without a router.
    """

    before: Mapping[str, ScoreSummary] = field(default_factory=dict)
    scores: Mapping[str, ScoreSummary] = field(default_factory=dict)
    verdict: Verdict | None = None
    loss: str = ""
    refused: bool = False
    notices: tuple[str, ...] = ()
    skipped: Mapping[str, object] = field(default_factory=dict)
    routed: Mapping[str, ScoreSummary] = field(default_factory=dict)
    routing: RoutingAccuracy | None = None

    @property
    def notes(self) -> dict[str, object]:
        """What the entry notes: the verdict, where there is one."""
        return {**({GATE: self.verdict.to_json()} if self.verdict else {}), **self.skipped}

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notices, and the sentence on the tasks that lost."""
        return (*self.notices, self.loss) if self.loss else self.notices


def rescore(
    session: Session, entry: Entry, wanted: Rescore, tick: Tick | None = None, edited: Collection[str] = ()
) -> Rescored:
    """Score every task at an entry that was made on a parent; stored scores of the same weights are looked up.

    Where tasks were learned with a router, they are scored without their names too: only rows that are sent to other weights than
    their own task's, and that these did not answer at the parent, are answered.

    Args:
        session: Of the workspace.
        entry: An entry or a draft, its objects stored.
        wanted: What is scored.
        tick: Called with (what, done, total) as work goes on.
        edited: Prompts of the facts that the entry writes; guards are not scored on them.
    """
    mode: Mode = "none" if wanted.rows == "none" else mode_of(session.ledger, wanted.guards)
    skipped = skipped_note(session.ledger, mode)
    known = {name: session.task(name, entry) for name in entry.tasks}
    tasks = {name: task for name, task in known.items() if task.test}
    if wanted.rows == "none":
        return Rescored(notices=_not_scored(session.ledger, entry, list(tasks)), skipped=skipped)
    most = SAMPLE if wanted.rows == "quick" else None
    tasks, unrun = without_unrun(session, entry, tasks, most=most)
    scored_tasks = {name: session.score(entry, task, tick, most) for name, task in tasks.items()}
    scores = {name: scored.score for name, scored in scored_tasks.items()}
    earlier = _newest(
        session.ledger, session.ledger.entry(str(entry.parent)), {name: entry.tasks[name] for name in tasks}
    )
    pairs = {name: over_rows(score, scores[name].rows) for name, score in earlier.items()}
    before = {name: score for name, score in pairs.items() if score is not None}
    notices = (*unrun, *dict.fromkeys(text for scored in scored_tasks.values() for text in scored.notices))
    guards = measure_guards(session, entry, edited=edited, tick=tick) if mode != "none" else {}
    gate = gate_with(Gate(strict=wanted.strict), mode)
    verdict, loss = _compared(session.ledger, entry, before, scores, gate, guard_items(guards))
    refused = wanted.strict and bool(loss)
    judged = verdict.guards if verdict else None
    if judged and judged.enforced and judged.verdict == "fail":
        refused, loss = True, f"{judged.reason}; {loss}" if loss else judged.reason
    notices = (*notices, *(guard_notices(session, guards) if mode != "none" else ()), *guard_warnings(judged))
    routed = {} if refused else routed_scores(session, entry, tasks.values(), tick, most)
    return Rescored(
        before=_summaries(before),
        scores=_summaries(scores),
        verdict=verdict,
        loss=loss,
        refused=refused,
        notices=notices,
        skipped=skipped,
        routed=_summaries(routed),
        routing=routing_at(session.ledger, entry, routed),
    )


def _not_scored(ledger: Ledger, entry: Entry, tasks: Sequence[str]) -> tuple[str, ...]:
    """Return a notice on the tasks whose scores at an entry are not known; none where its weights were scored before."""
    unknown = [name for name in tasks if ledger.score(ledger.seen(entry, name), entry.tasks[name]) is None]
    return (f"not scored: {', '.join(map(ledger.shown_name, unknown))}; 'perdure eval' scores them",) if unknown else ()


def _newest(ledger: Ledger, entry: Entry, versions: Mapping[str, str]) -> dict[str, Score]:
    """Return the newest score of each task at an entry or before it, where one was measured."""
    newest: dict[str, Score] = {}
    for past in ledger.ancestors(entry):
        left = {name: version for name, version in versions.items() if name not in newest}
        here = {name: version for name, version in left.items() if past.tasks.get(name) == version}
        if not here:
            return newest
        seen = ledger.seen_by(past, here)
        scores = ledger.scores(seen.values(), here.values())
        cells = {name: scores.get((seen[name], version)) for name, version in here.items()}
        newest |= {name: score for name, score in cells.items() if score is not None}
    return newest


def _compared(
    ledger: Ledger,
    entry: Entry,
    before: Mapping[str, Score],
    scores: Mapping[str, Score],
    gate: Gate,
    guards: Mapping[str, GuardItems],
) -> tuple[Verdict | None, str]:
    """Return a gate's verdict on the tasks that were scored before, and its sentence on those that lost.

    `strict` refuses a change by a loss alone: without one, the verdict is that of a gate that is not strict.
    """
    from perdure.evaluate.evidence import GuardedTask, make_evidence
    from perdure.evaluate.gate import loss_reason, renamed

    if not before and not guards:
        return None, ""
    tasks = {name: GuardedTask(entry.tasks[name], score, scores[name]) for name, score in before.items()}
    verdict = make_evidence(gate, "", tasks, guards=guards).verdict
    if gate.strict and not verdict.losses and not (verdict.guards and verdict.guards.verdict == "fail"):
        verdict = make_evidence(replace(gate, strict=False), "", tasks, guards=guards).verdict
    return verdict, loss_reason(gate, renamed(verdict, ledger.aliases))


def _summaries(scores: Mapping[str, Score]) -> dict[str, ScoreSummary]:
    return {name: score.summary for name, score in scores.items()}
