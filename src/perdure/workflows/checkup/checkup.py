"""Checkup: what the model at an entry can do, compared with the base model: tasks, abilities, facts, drift, and a verdict."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.words import counted
from perdure.data.task import TaskData
from perdure.evaluate.evidence import GuardedTask, make_evidence
from perdure.evaluate.gate import strictly
from perdure.evaluate.judge import Judged
from perdure.ledger import Entry
from perdure.ledger.records import Gate, Guard, Score, Verdict
from perdure.maths.families import look_confidence
from perdure.maths.statistics import paired_difference
from perdure.workflows.checkup.choose import choose
from perdure.workflows.checkup.cost import Planned, decided_with, items_in, plan, total
from perdure.workflows.checkup.readings import abilities, drift, guard_reading, knowledge, main_drift, others
from perdure.workflows.checkup.stored import store_checkup
from perdure.workflows.checkup_records import Change, Checkup, Cost, TaskReading
from perdure.workflows.guards.embedding import with_embedding
from perdure.workflows.guards.judge import guard_items
from perdure.workflows.guards.measure import MeasuredGuard, measure_guards
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.session import Session
from perdure.workflows.unscored import without_unrun

Name = Literal["quick", "standard", "full"]
About = Callable[[str], None]
BUDGETS: tuple[str, ...] = get_args(Name)
BASE = "base"
OF_EACH = "each guard's reference"  # where the guards refer to different entries
GROW = "grow"
CONFIDENCE = Gate().confidence
SHORT = 12  # characters of an id


@dataclass(frozen=True)
class CheckupRequest:
    """What a checkup measures.

    Args:
        at: Ref of the model.
        against: Ref that guards are compared with; None takes the reference of each, which is the base model unless it was moved.
        budget: "quick", "standard" or "full"; "grow" for each of them in turn until the verdict is decided, which spends a tenth,
            three tenths and six tenths of the error; or seconds, for the guards.
        only: Abilities, names of guards, and tasks of lm-evaluation-harness as `harness:NAME`; empty takes all.
        data: Folder of the data files of public sets; None takes the one that PERDURE_DATA names.
        strict: An undecided gate counts as failed; with "grow", after the last look.
        judge: Compares the answers of the drift guard with the reference's: `http(s)://HOST/v1#MODEL` of an OpenAI-style chat
            endpoint, or a command; see `guards.judging`. None asks no judge.
        embedding: Compare hidden states of the answers of the drift guard with the reference's; see `guards.embedding`.

    Raises:
        BadInput: The budget is none of these.
    """

    at: str = "head"
    against: str | None = None
    budget: str | float = "quick"
    only: Collection[str] = ()
    data: Path | None = None
    strict: bool = False
    judge: str | None = None
    embedding: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.budget, str) and self.budget not in (*BUDGETS, GROW):
            raise BadInput(f"budget is {self.budget!r}; it is {', '.join(BUDGETS)}, {GROW}, or seconds, as 300s")
        if not isinstance(self.budget, str) and not 0 < self.budget < float("inf"):
            raise BadInput(f"a budget of {self.budget} seconds measures nothing; give more than 0")


def checkup(session: Session, request: CheckupRequest, tick: Tick | None = None, about: About | None = None) -> Checkup:
    """Return what the model at an entry can do; stored scores are looked up. It is stored as a note of the entry, see `stored`.

    Args:
        session: Of the workspace.
        request: What is measured.
        tick: Called with (what, done, total) as work goes on.
        about: Called before anything is scored, with a sentence on the cost.

    Raises:
        NotFound: A ref, a guard or an ability is not known.
        BadInput: Nothing can be measured, or the judge gives no verdicts.
        Busy: Another process writes to the workspace.
    """
    found, guards = _looked(session, request, tick, about)
    if request.against is None:  # else it is a comparison of two states, and no reading of this one
        store_checkup(session, session.ledger.resolve(request.at), found, guards)
    return found


def _looked(
    session: Session, request: CheckupRequest, tick: Tick | None, about: About | None
) -> tuple[Checkup, list[Guard]]:
    """Return a checkup of the budget that is asked for, or of growing ones until it is decided, and the guards it measured."""
    if request.budget != GROW:
        return _measured(session, request, CONFIDENCE, tick, about)
    seconds = 0.0
    for look, budget in enumerate(BUDGETS, start=1):
        confidence = look_confidence(look, CONFIDENCE)
        # not strict, under which a look that does not decide would count as a failed one, and end the growth
        found, guards = _measured(session, replace(request, budget=budget, strict=False), confidence, tick, about)
        seconds += found.cost.seconds
        if found.gate.verdict != "inconclusive":
            break
    gate = strictly(found.gate) if request.strict else found.gate
    return replace(found, gate=gate, cost=replace(found.cost, seconds=round(seconds, 1))), guards


def _measured(
    session: Session, request: CheckupRequest, confidence: float, tick: Tick | None, about: About | None
) -> tuple[Checkup, list[Guard]]:
    """Return a checkup of one budget, and the guards that it measured.

    Args:
        session: Of the workspace.
        request: What is measured.
        confidence: One-sided, of the verdict.
        tick: See `checkup`.
        about: See `checkup`.
    """
    ledger = session.ledger
    entry = ledger.resolve(request.at)
    against = None if request.against is None else ledger.resolve(request.against)
    with session.writing():
        chosen = choose(session, request.only, request.data, against)
        if not chosen.guards and not entry.tasks:
            raise BadInput("there is no task and no guard to measure; 'perdure guard add NAME' adds a guard")
        budget = request.budget
        wanted = (
            {guard.name: guard.items.of(budget) for guard in chosen.guards}
            if isinstance(budget, str)
            else items_in(session, chosen.guards, entry, budget)
        )
        planned = plan(session, chosen.guards, entry, wanted)
        if about:
            about(_announced(planned))
        every = _tasks(session, entry, request.only)
        tasks, unrun = without_unrun(session, entry, every)
        scored = {name: session.score(entry, task, tick) for name, task in tasks.items()}
        measured = measure_guards(session, entry, wanted, guards=chosen.guards, tick=tick)
        if request.embedding:
            measured = _with_embedding(session, measured, entry, tick)
        judged = _judged(session, request, measured, tick)
    learned = {name: _learned(session, entry, name) for name in scored}
    guards = {name: guard_reading(one) for name, one in measured.items()}
    if request.against is None:
        guards = {name: replace(one, reference=_moved(session, measured[name].guard)) for name, one in guards.items()}
    scores = {name: one.score for name, one in scored.items()}
    seconds = sum(one.seconds for one in scored.values()) + sum(one.seconds for one in guards.values())
    notices = [text for one in scored.values() for text in one.notices]
    notices += [text for one in measured.values() for text in one.notices]
    notices += [*unrun, *chosen.not_run, *(judged.notices if judged else ())]
    if chosen.left_out:
        notices.append(
            f"not measured, as their data are not here: {', '.join(chosen.left_out)}; give their folder with --data or "
            "PERDURE_DATA"
        )
    budget_name = budget if isinstance(budget, str) else f"{budget:g}s"
    items = sum(one.n for one in scores.values()) + sum(one.n for one in guards.values())
    verdict = _verdict(
        Gate(strict=request.strict, guards="enforce", confidence=confidence),
        entry,
        scores,
        learned,
        measured,
        budget_name,
        [name for name in every if name not in tasks],
    )
    found = Checkup(
        ref=request.at,
        against=request.against or _against(session, chosen.guards),
        tasks={name: _task_reading(session, name, entry, score, learned[name]) for name, score in scores.items()},
        pretraining_abilities=abilities(guards),
        knowledge_retention=knowledge(guards),
        instruction_drift=drift(measured.values(), judged.items if judged else ()),
        gate=verdict,
        cost=_cost(session, planned, entry, budget_name, verdict, Cost(round(seconds, 1), items)),
        other=others(guards),
        guards=guards,
        entry=entry.id,
        budget=budget_name,
        metrics={name: one.value for name, one in matrix(ledger, entry.id).metrics.items()} if scores else {},
        warnings=tuple(dict.fromkeys(notices)),
    )
    return found, [one.guard for one in measured.values()]


def _with_embedding(
    session: Session, measured: Mapping[str, MeasuredGuard], entry: Entry, tick: Tick | None
) -> dict[str, MeasuredGuard]:
    """Return measured guards, that of drift with the reading `embedding`."""
    main = main_drift(measured.values())
    if main is None:
        raise BadInput(
            "embedding compares the answers of a drift guard, and none is measured; leave --only out, or name drift"
        )
    return {**measured, main.guard.name: with_embedding(session, main, entry, tick)}


def _judged(
    session: Session, request: CheckupRequest, measured: Mapping[str, MeasuredGuard], tick: Tick | None
) -> Judged | None:
    """Return what a judge made of the answers of the drift guard; None where none is asked."""
    if request.judge is None:
        return None
    from perdure.workflows.guards.judging import judge_answers, pairs_of

    main = main_drift(measured.values())
    if main is None:
        raise BadInput(
            "a judge compares the answers of a drift guard, and none is measured; leave --only out, or name drift"
        )
    pairs = pairs_of(main.rows, main.before, main.now)
    return judge_answers(
        pairs, request.judge, session.ledger.root, tick=lambda done: tick("judging", done, len(pairs)) if tick else None
    )


def _tasks(session: Session, entry: Entry, only: Collection[str]) -> dict[str, TaskData]:
    """Return the tasks of an entry that have test rows; none where only some abilities are measured."""
    known = {} if only else {name: session.task(name, entry) for name in entry.tasks}
    return {name: task for name, task in known.items() if task.test}


def _learned(session: Session, entry: Entry, task: str) -> Score | None:
    """Return the score of a task at the entry that learned it last, where it was measured on the version in force."""
    ledger = session.ledger
    past = ledger.last_learn(entry, task)
    return ledger.score(ledger.seen(past, task), past.tasks[task]) if past else None


def _task_reading(session: Session, name: str, entry: Entry, now: Score, learned: Score | None) -> TaskReading:
    ledger = session.ledger
    base = ledger.score(ledger.seen(ledger.resolve("base"), name), entry.tasks[name])
    change = None
    if base is not None and base.rows == now.rows:
        change = Change(*paired_difference(now.items, base.items))
    return TaskReading(
        base=base.score if base else None,
        now=now.score,
        low=now.low,
        high=now.high,
        n=now.n,
        change=change,
        learned=learned.score if learned else None,
    )


def _verdict(
    gate: Gate,
    entry: Entry,
    tasks: Mapping[str, Score],
    learned: Mapping[str, Score | None],
    measured: Mapping[str, MeasuredGuard],
    budget: str,
    unguarded: Sequence[str],
) -> Verdict:
    """Return the verdict on all tasks and guards; here guards count, whatever a learn does with them."""
    guarded = {name: GuardedTask(entry.tasks[name], learned[name], score) for name, score in tasks.items()}
    return make_evidence(gate, "", guarded, unguarded=unguarded, guards=guard_items(measured, budget)).verdict


def _announced(planned: tuple[Planned, ...]) -> str:
    """Return a sentence on what is going to be scored."""
    missing = sum(one.missing for one in planned)
    if not missing:
        return "every guard is scored already"
    seconds = total(planned)
    time = "; no row was timed yet" if seconds is None else f", about {seconds:.0f} s"
    return (
        f"scoring {counted(missing, 'row')} of {counted(len(planned), 'guard')}, those of the reference included{time}"
    )


def _cost(
    session: Session, planned: tuple[Planned, ...], entry: Entry, budget: str, verdict: Verdict, spent: Cost
) -> Cost:
    """Return what a checkup cost, with what the next larger budget would cost and decide."""
    place = BUDGETS.index(budget) + 1 if budget in BUDGETS else len(BUDGETS)
    if place >= len(BUDGETS):
        return spent
    following = BUDGETS[place]
    guards = [one.guard for one in planned]
    wanted = {guard.name: guard.items.of(following) for guard in guards}
    time = total(plan(session, guards, entry, wanted))
    decides = decided_with(verdict.guards, wanted)
    return replace(
        spent, next_budget=following, next_seconds=None if time is None else round(time, 1), next_decides=decides
    )


def _against(session: Session, guards: Sequence[Guard]) -> str:
    """Return what guards are compared with, in a word: the base, the entry of all references, or that of each guard."""
    references = {guard.reference for guard in guards} or {session.ledger.resolve(BASE).id}
    if references == {session.ledger.resolve(BASE).id}:
        return BASE
    return references.pop()[:SHORT] if len(references) == 1 else OF_EACH


def _moved(session: Session, guard: Guard) -> str:
    """Return the id of the entry that a guard's reference was moved to; empty where it is the base."""
    return "" if guard.reference == session.ledger.resolve(BASE).id else guard.reference
