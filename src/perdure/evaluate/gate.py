"""The gate decides whether a new entry may become head. Its verdict is a pure function of the evidence.

For each guarded task, drop = score when it was learned - score now, paired over the test rows that both scored, with
one-sided bounds:

* pass: the upper bound of the drop is within the tolerance;
* fail: its lower bound is above the tolerance;
* inconclusive: neither; the verdict gives the number of further test items that would decide if the drop stays as it is.

One failed task fails the gate. One inconclusive task makes the gate inconclusive; `strict` counts that as fail.

The confidence is that of the whole gate. That all tasks pass is an intersection-union test: each at 95% is 95% for all. That
some task failed is a family of tests: twelve tasks whose drop equals the tolerance would each fail in one of twenty learns. So
with more than one task "fail" is corrected by Holm's method (`correct`), and a task that only fails without it is inconclusive.

Edited facts are counted, not sampled: the gate fails if more are lost than `lost_facts` allows. The `floor` is compared with the
new task's score itself, not with a bound, because it states what is good enough, not what was lost. Guards, which measure what
the model could do before it learned any task, have a rule of their own: see `family.py`.

The evidence is one JSON object. It can be judged again without a model and without a ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from perdure.core.errors import BadInput
from perdure.core.keyed import seed_of
from perdure.evaluate.family import judge_guards
from perdure.evaluate.family_screen import guards_screen
from perdure.evaluate.wording import bounds, change, listed, more_items, percent, points
from perdure.ledger.records import (
    FactKept,
    FactsVerdict,
    FloorVerdict,
    Gate,
    GuardItems,
    GuardsVerdict,
    ItemScores,
    TaskVerdict,
    Verdict,
)
from perdure.ledger.records.verdict import Word
from perdure.maths.families import holm, simultaneous_confidence
from perdure.maths.statistics import items_needed, paired_difference, paired_p_value

SHOWN = 15  # tasks on the screen; the rest are passed ones, counted
STRICT = " (strict: this counts as fail)"
TO_DECIDE = "To decide, learn the task again with more test rows (--test FILE); --strict refuses what is not decided"
NAMED = 3  # lost facts that the reason names
NO_GUARDS: Mapping[str, GuardItems] = MappingProxyType({})
ORDER = ("fail", "inconclusive", "pass")


def decide(
    gate: Gate,
    new_task: str,
    tasks: Mapping[str, ItemScores],
    facts: Sequence[FactKept] = (),
    unguarded: Sequence[str] = (),
    guards: Mapping[str, GuardItems] = NO_GUARDS,
) -> Verdict:
    """Return the verdict on how a learn changed older tasks and facts.

    Args:
        gate: The rule.
        new_task: Name of the task just learned.
        tasks: Scores by task: those that are guarded, and the new one.
        facts: The edited facts in force.
        unguarded: Names of older tasks that are not judged.
        guards: Scores by guard.

    Raises:
        BadInput: A floor is set and there are no scores of the new task.
    """
    guarded = guarded_tasks(tasks)
    together = gate.correct == "holm" and len(guarded) > 1
    verdicts = [_judge(gate, name, task.learned or (), task.now) for name, task in guarded.items()]
    if together:
        verdicts = _corrected(gate, verdicts, guarded)
    judged = tuple(sorted(verdicts, key=lambda task: (ORDER.index(task.verdict), -task.drop, task.task)))
    floor = _judge_floor(gate, new_task, tasks)
    verdict, reason = _overall(gate, judged, floor, unguarded)
    edited = _judge_facts(gate, facts)
    if edited and edited.verdict == "fail":
        verdict, reason = "fail", f"{edited.reason}; {reason}" if verdict == "fail" else edited.reason
    kept = judge_guards(gate, guards) if guards else None
    if kept and kept.enforced and kept.verdict != "pass":
        verdict, reason = _with_guards(gate, kept, verdict, reason)
    correct: Literal["holm", "none"] = "holm" if together else "none"
    return Verdict(verdict, gate.tolerance, gate.confidence, gate.strict, reason, judged, floor, edited, correct, kept)


def strictly(verdict: Verdict) -> Verdict:
    """Return the verdict that the same scores have with `Gate(strict=True)`: one that is inconclusive fails."""
    if verdict.verdict != "inconclusive":
        return replace(verdict, strict=True)
    return replace(verdict, verdict="fail", reason=verdict.reason + STRICT, strict=True)


def guarded_tasks(tasks: Mapping[str, ItemScores]) -> dict[str, ItemScores]:
    """Return the tasks that have something to lose."""
    return {name: task for name, task in tasks.items() if task.learned is not None}


def loss_reason(gate: Gate, verdict: Verdict) -> str:
    """Return a sentence on the tasks that lost, as `Verdict.losses` counts them; empty where none did."""
    return _overall(gate, verdict.losses, None, ())[1] if verdict.losses else ""


def renamed(verdict: Verdict, aliases: Mapping[str, str]) -> Verdict:
    """Return a verdict as people see it, each renamed task under its alias; tasks that were not judged keep their names.

    Args:
        verdict: The verdict.
        aliases: Alias by name.
    """
    tasks = tuple(replace(task, task=aliases.get(task.task, task.task)) for task in verdict.tasks)
    floor = verdict.floor and replace(verdict.floor, task=aliases.get(verdict.floor.task, verdict.floor.task))
    if not set(aliases) & {task.task for task in verdict.tasks}:
        return replace(verdict, floor=floor)
    gate = Gate(tolerance=verdict.tolerance, confidence=verdict.confidence, strict=verdict.strict)
    before, after = (_overall(gate, some, floor, ())[1] for some in (verdict.tasks, tasks))
    return replace(verdict, tasks=tasks, floor=floor, reason=verdict.reason.replace(before, after))


def screen(verdict: Verdict, differences: Sequence[str] = (), *, reason: bool = True, advice: bool = True) -> str:
    """Return the verdict as one screen of plain text: the decision, the reason, then the guarded tasks, worst first.

    Args:
        verdict: The verdict.
        differences: How a stored verdict differs from it.
        reason: Print the reason, and how many more test items would decide; False where the caller prints both.
        advice: Print what to do where guards fell; False where the caller prints it.
    """
    strict = ", strict" if verdict.strict else ""
    together = f", fail corrected for {len(verdict.tasks)} tasks" if verdict.correct == "holm" else ""
    rule = (
        f"tolerance {points(verdict.tolerance)}, bounds with {100 * verdict.confidence:g}% confidence{together}{strict}"
    )
    lines = [f"gate: {verdict.verdict.upper()} ({rule})", *([verdict.reason] if reason else [])]
    shown = verdict.tasks[:SHOWN]
    if shown:
        width = max(len(task.task) for task in shown)
        lines += ["", *(_screen_line(task, width, verdict.tolerance, advice=reason) for task in shown)]
    rest = [task.verdict for task in verdict.tasks[SHOWN:]]
    if rest:
        lines.append(f"... and {len(rest)} more: " + ", ".join(f"{rest.count(w)} {w}" for w in ORDER if w in rest))
    if (floor := verdict.floor) and floor.reason not in verdict.reason:
        lines += ["", f"{floor.task}: {floor.reason}"]
    if (facts := verdict.facts) and facts.reason not in verdict.reason:
        lines += ["", facts.reason]
    if verdict.guards:
        told = verdict.guards.reason in verdict.reason
        lines += ["", *guards_screen(verdict.guards, reason=not told, advice=advice)]
    lines += [f"differs from the stored verdict: {line}" for line in differences]
    return "\n".join(lines) + "\n"


def _judge(gate: Gate, name: str, then: Sequence[float], now: Sequence[float]) -> TaskVerdict:
    tolerance = gate.tolerances.get(name, gate.tolerance)
    drop, low, high = paired_difference(then, now, gate.confidence, one_sided=True, seed=seed_of("gate", name))
    verdict: Word = "pass" if high <= tolerance else "fail" if low > tolerance else "inconclusive"
    # At least one more: for items other than 0 and 1 the count is an approximation, and it may be 0 or less.
    needed = items_needed(then, now, tolerance, gate.confidence) if verdict == "inconclusive" else None
    judged = TaskVerdict(
        task=name,
        verdict=verdict,
        reference=float(np.mean(then)),
        now=float(np.mean(now)),
        drop=drop,
        low=low,
        high=high,
        n=len(now),
        tolerance=tolerance,
        more_items=None if needed is None else max(needed, 1),
        reason="",
    )
    return _explained(judged)


def _explained(task: TaskVerdict) -> TaskVerdict:
    """Return the verdict with its reason."""
    scores = f"{percent(task.reference)} when it was learned, {percent(task.now)} now ({task.n} test items)"
    return replace(task, reason=f"{scores}: {_words(task)}; tolerance {points(task.tolerance)}")


def _corrected(gate: Gate, verdicts: Sequence[TaskVerdict], tasks: Mapping[str, ItemScores]) -> list[TaskVerdict]:
    """Return the verdicts with "fail" corrected for their number: a task that fails only by itself is inconclusive."""
    level, single = 1 - gate.confidence, simultaneous_confidence(gate.confidence, len(verdicts))
    pairs = [(tasks[task.task].learned or (), tasks[task.task].now) for task in verdicts]
    p_values = [
        paired_p_value(then, now, task.tolerance, seed=seed_of("gate", task.task), continuity=len(verdicts) > 1)
        for task, (then, now) in zip(verdicts, pairs, strict=True)
    ]
    corrected = []
    for task, (then, now), p in zip(verdicts, pairs, holm(p_values), strict=True):
        judged = replace(task, p=p)
        if task.verdict == "fail" and p >= level:
            more = items_needed(then, now, task.tolerance, single)
            judged = replace(judged, verdict="inconclusive", more_items=None if more is None else max(more, 1))
        corrected.append(_explained(judged))
    return corrected


def _with_guards(gate: Gate, guards: GuardsVerdict, verdict: Word, reason: str) -> tuple[Word, str]:
    """Return the verdict and the reason of a gate that guards are part of, where these do not pass."""
    also = f"; {reason}" if verdict == guards.verdict or verdict == "fail" else ""
    if guards.verdict == "fail":
        return "fail", guards.reason + also
    if verdict == "fail":
        return verdict, reason
    strict = STRICT if gate.strict else ""
    return "fail" if gate.strict else "inconclusive", f"{guards.reason}{also}{strict}"


def _words(task: TaskVerdict, advice: bool = True) -> str:
    """Return in words what the bounds of one task mean."""
    seen = change(task.drop)
    if task.verdict == "pass":
        return f"{seen}, at most {points(task.high)} lost" if task.high > 0 else f"{seen}, surely a gain"
    if task.verdict == "fail":
        return f"{seen}, at least {points(task.low)}"
    open_ = bounds(task.drop, task.low, task.high)
    if task.low > task.tolerance:
        open_ += ", not certain for all tasks together"
    return f"{open_}; {more_items(task.more_items)}" if advice else open_


def _judge_floor(gate: Gate, new_task: str, tasks: Mapping[str, ItemScores]) -> FloorVerdict | None:
    if gate.floor is None:
        return None
    if new_task not in tasks:
        raise BadInput(
            f"the gate has a floor for the new task, and {new_task!r} has no scores in the evidence; score it"
        )
    items = tasks[new_task].now
    now = float(np.mean(items))
    verdict: Word = "pass" if now >= gate.floor else "fail"
    relation = "reaches" if verdict == "pass" else "is below"
    reason = f"the new task's {percent(now)} ({len(items)} test items) {relation} the floor of {percent(gate.floor)}"
    return FloorVerdict(new_task, verdict, now, len(items), gate.floor, reason)


def _judge_facts(gate: Gate, facts: Sequence[FactKept]) -> FactsVerdict | None:
    """Return the verdict on the facts that the model answered with before the learn; None where there was none."""
    before = [fact for fact in facts if fact.before]
    if not before:
        return None
    lost = [fact for fact in before if not fact.now]
    allowed = f"at most {percent(gate.lost_facts)} may be lost" if gate.lost_facts else "none may be lost"
    reason = f"all {len(before)} edited facts are still said" if len(before) > 1 else "the edited fact is still said"
    if lost:
        names = ", ".join(f"{fact.prompt!r} {fact.target!r}" for fact in lost[:NAMED])
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        verb = "is" if len(lost) == 1 else "are"
        reason = f"{len(lost)} of {len(before)} edited facts {verb} no longer said ({names}{more}); {allowed}"
    verdict: Word = "pass" if len(lost) <= gate.lost_facts * len(before) + 1e-9 else "fail"
    return FactsVerdict(verdict, len(before), tuple(fact.fact for fact in lost), gate.lost_facts, reason)


def _overall(
    gate: Gate, tasks: Sequence[TaskVerdict], floor: FloorVerdict | None, unguarded: Sequence[str]
) -> tuple[Word, str]:
    lost = [task for task in tasks if task.verdict == "fail"]
    open_ = [task for task in tasks if task.verdict == "inconclusive"]
    if floor and floor.verdict == "fail":
        also = f"; {_named(lost)} lost more than the tolerance" if lost else ""
        return "fail", floor.reason + also
    if lost:
        worst = lost[0]
        change = f"{percent(worst.reference)} to {percent(worst.now)}"
        return "fail", f"{_named(lost)} lost more than the tolerance; the worst is {worst.task}, from {change}"
    if open_:
        hints = [task.more_items for task in open_]
        known = [hint for hint in hints if hint is not None]
        advice = more_items(max(known) if len(known) == len(hints) else None, each=len(open_) > 1)
        reason = f"the test items do not tell whether {_named(open_)} stayed within the tolerance"
        reason += f"; if the drop stays as it is, {advice}"
        return ("fail", reason + STRICT) if gate.strict else ("inconclusive", reason)
    if not tasks and unguarded:
        return "pass", f"no task is guarded: what {listed(unguarded)} lost was not judged"
    if not tasks:
        return "pass", "first task: nothing to lose"
    most = max(tasks, key=lambda task: task.high)
    what = "the guarded task is kept" if len(tasks) == 1 else f"all {len(tasks)} guarded tasks are kept"
    return "pass", f"{what}; {most.task} can have lost most, {points(max(most.high, 0.0))} at the worst"


def _screen_line(task: TaskVerdict, width: int, tolerance: float, advice: bool) -> str:
    scores = f"{percent(task.reference):>6} -> {percent(task.now):>6}  n={task.n:<5}"
    own = "" if task.tolerance == tolerance else f" (tolerance {points(task.tolerance)})"
    return f"{task.verdict:<12}  {task.task:<{width}}  {scores}  {_words(task, advice)}{own}"


def _named(tasks: Sequence[TaskVerdict]) -> str:
    return listed([task.task for task in tasks])
