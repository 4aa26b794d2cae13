"""The gate: may a new entry become head, or did it lose something? A verdict is a pure function of the evidence.

For each guarded task, drop = score when it was learned - score now, paired over the test rows that both scored, with
one-sided bounds:

* pass: the upper bound of the drop is within the tolerance;
* fail: its lower bound is above the tolerance;
* inconclusive: neither; the verdict says how many more test items would decide if the drop stays as it is.

One failed task fails the gate; one inconclusive task leaves it inconclusive, which `strict` counts as fail. Edited facts are
counted, not sampled: more lost than `lost_facts` allows fails the gate. Confidence
is per task: with many guarded tasks that all sit exactly on the tolerance, one in twenty is failed, and one in twenty
passed, by chance. The `floor` is compared with the new task's score itself, not with a bound: it states what is good
enough, not what was lost.

The evidence is one JSON object that needs nothing else, no model and no ledger, to be judged again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from perdure.core.errors import BadInput, BadSpec
from perdure.core.keyed import seed_of
from perdure.core.plain_text import clipped, quoted
from perdure.maths.statistics import items_needed, paired_difference

SHOWN = 15  # tasks on the screen; the rest are passed ones, counted
NAMED = 3  # lost facts that the reason names
ORDER = ("fail", "inconclusive", "pass")


@dataclass(frozen=True)
class Gate:
    """What may be lost, and how sure one must be.

    Args:
        tolerance: Largest drop that is accepted, as a share: 0.03 is 3 points. In [0, 1).
        confidence: One-sided, of each bound, in (0.5, 1).
        strict: Count an inconclusive verdict as fail.
        floor: Least score of the new task, in [0, 1]; None for no floor.
        tolerances: Tolerance of single tasks by name, in place of `tolerance`.
        lost_facts: Largest share of the edited facts said before that may not be said any more, in [0, 1]. A fact is there
            because somebody asked for it, and is asked again itself, so that no sampling error excuses its loss.

    Raises:
        BadSpec: A value is out of its range.
    """

    tolerance: float = 0.03
    confidence: float = 0.95
    strict: bool = False
    floor: float | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    lost_facts: float = 0.0

    def __post_init__(self) -> None:
        own = {f"tolerance of {clipped(task, 60)}": value for task, value in self.tolerances.items()}
        for name, value in {"tolerance": self.tolerance, **own}.items():
            if not is_number(value) or not 0 <= value < 1:
                raise BadSpec(f"gate {name} is {quoted(value)}; give a share from 0 to below 1, as 0.03 for 3 points")
        if not is_number(self.confidence) or not 0.5 < self.confidence < 1:
            raise BadSpec(f"gate confidence is {quoted(self.confidence)}; give a number between 0.5 and 1, as 0.95")
        if self.floor is not None and (not is_number(self.floor) or not 0 <= self.floor <= 1):
            raise BadSpec(f"gate floor is {quoted(self.floor)}; give a score from 0 to 1, or none")
        if not is_number(self.lost_facts) or not 0 <= self.lost_facts <= 1:
            raise BadSpec(
                f"gate lost_facts is {quoted(self.lost_facts)}; give a share of the edited facts, from 0 to 1"
            )
        if not isinstance(self.strict, bool):
            raise BadSpec(f"gate strict is {quoted(self.strict)}; write true or false")

    def to_json(self) -> dict[str, Any]:
        """Return the gate as plain JSON; `from_json` restores an equal one."""
        return asdict(self) | {"tolerances": dict(self.tolerances)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Gate":
        """Restore a gate written by `to_json`; keys that are not there keep their defaults.

        Raises:
            BadSpec: An unknown key or a value out of range.
        """
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise BadSpec(f"unknown gate setting {quoted(unknown[0])}; known: {', '.join(f.name for f in fields(cls))}")
        if not isinstance(data.get("tolerances", {}), Mapping):
            raise BadSpec(
                f"gate tolerances are {quoted(data['tolerances'])}; write a mapping of task name to tolerance"
            )
        return cls(**data)


def decide(gate: Gate, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict on the items in `evidence`, in which neither "gate" nor "verdict" is looked at.

    Returns:
        `{"verdict", "tolerance", "confidence", "strict", "reason", "tasks", "floor", "facts"}`; "tasks" has one object per
        guarded task, the worst first; "floor" is None where the gate has none, else `{"task", "verdict", "now", "n",
        "floor", "reason"}`; "facts" is None where no fact was said before, else `{"verdict", "n", "lost", "allowed",
        "reason"}` with the ids of the lost ones. Evidence from before facts were judged has no "facts", nor its verdict.

    Raises:
        BadInput: A floor is set and the evidence has no items of the new task.
    """
    guarded = {name: task for name, task in evidence["tasks"].items() if task["learned"] is not None}
    tasks = [_judge(gate, name, task) for name, task in guarded.items()]
    tasks.sort(key=lambda task: (ORDER.index(task["verdict"]), -task["drop"], task["task"]))
    floor = _judge_floor(gate, evidence)
    verdict, reason = _overall(gate, tasks, floor, evidence.get("unguarded", ()))
    facts = _judge_facts(gate, evidence.get("facts", ()))
    if facts and facts["verdict"] == "fail":
        verdict, reason = "fail", f"{facts['reason']}; {reason}" if verdict == "fail" else facts["reason"]
    return {
        "verdict": verdict,
        "tolerance": gate.tolerance,
        "confidence": gate.confidence,
        "strict": gate.strict,
        "reason": reason,
        "tasks": tasks,
        "floor": floor,
        **({"facts": facts} if "facts" in evidence else {}),
    }


def screen(verdict: Mapping[str, Any]) -> str:
    """Return the verdict as one screen of plain text: what was decided and why, then the guarded tasks, worst first."""
    strict = ", strict" if verdict["strict"] else ""
    rule = f"tolerance {_points(verdict['tolerance'])}, bounds with {100 * verdict['confidence']:g}% confidence{strict}"
    lines = [f"gate: {verdict['verdict'].upper()} ({rule})", verdict["reason"]]
    shown = verdict["tasks"][:SHOWN]
    if shown:
        width = max(len(task["task"]) for task in shown)
        lines += ["", *(_screen_line(task, width, verdict["tolerance"]) for task in shown)]
    rest = [task["verdict"] for task in verdict["tasks"][SHOWN:]]
    if rest:
        lines.append(f"... and {len(rest)} more: " + ", ".join(f"{rest.count(w)} {w}" for w in ORDER if w in rest))
    floor = verdict["floor"]
    if floor and floor["reason"] not in verdict["reason"]:
        lines += ["", f"{floor['task']}: {floor['reason']}"]
    facts = verdict.get("facts")
    if facts and facts["reason"] not in verdict["reason"]:
        lines += ["", facts["reason"]]
    lines += [f"differs from the stored verdict: {line}" for line in verdict.get("differences", [])]
    return "\n".join(lines) + "\n"


def _judge(gate: Gate, name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    tolerance = gate.tolerances.get(name, gate.tolerance)
    then, now = task["learned"], task["now"]
    drop, low, high = paired_difference(then, now, gate.confidence, one_sided=True, seed=seed_of("gate", name))
    verdict = "pass" if high <= tolerance else "fail" if low > tolerance else "inconclusive"
    # At least one more: for items that are not 0 or 1 the count is an approximation and may say that enough are there.
    needed = items_needed(then, now, tolerance, gate.confidence) if verdict == "inconclusive" else None
    more = None if needed is None else max(needed, 1)
    reference, present = float(np.mean(then)), float(np.mean(now))
    judged = {
        "task": name,
        "verdict": verdict,
        "reference": reference,
        "now": present,
        "drop": drop,
        "low": low,
        "high": high,
        "n": len(now),
        "tolerance": tolerance,
        "more_items": more,
    }
    scores = f"{_percent(reference)} when it was learned, {_percent(present)} now ({len(now)} test items)"
    return judged | {"reason": f"{scores}: {_words(judged)}; tolerance {_points(tolerance)}"}


def _words(task: Mapping[str, Any]) -> str:
    """What the bounds of one task say."""
    seen = _change(task["drop"])
    if task["verdict"] == "pass":
        return f"{seen}, at most {_points(task['high'])} lost" if task["high"] > 0 else f"{seen}, surely a gain"
    if task["verdict"] == "fail":
        return f"{seen}, at least {_points(task['low'])}"
    best = f"{100 * abs(task['low']):.1f} {'lost' if task['low'] > 0 else 'gained'}"
    return f"{seen}, could be {best} to {100 * task['high']:.1f} lost; {_advice(task['more_items'])}"


def _judge_floor(gate: Gate, evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    if gate.floor is None:
        return None
    name = evidence["new_task"]
    if name not in evidence["tasks"]:
        raise BadInput(f"the gate has a floor for the new task, and {name!r} has no scores in the evidence; score it")
    items = evidence["tasks"][name]["now"]
    now = float(np.mean(items))
    verdict = "pass" if now >= gate.floor else "fail"
    relation = "reaches" if verdict == "pass" else "is below"
    reason = f"the new task's {_percent(now)} ({len(items)} test items) {relation} the floor of {_percent(gate.floor)}"
    return {"task": name, "verdict": verdict, "now": now, "n": len(items), "floor": gate.floor, "reason": reason}


def _judge_facts(gate: Gate, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What became of the facts that were said before; None where none was."""
    said = [fact for fact in facts if fact["before"]]
    if not said:
        return None
    lost = [fact for fact in said if not fact["now"]]
    allowed = f"at most {_percent(gate.lost_facts)} may be lost" if gate.lost_facts else "none may be lost"
    reason = f"all {len(said)} edited facts are still said" if len(said) > 1 else "the edited fact is still said"
    if lost:
        names = ", ".join(f"{fact['prompt']!r} {fact['target']!r}" for fact in lost[:NAMED])
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        verb = "is" if len(lost) == 1 else "are"
        reason = f"{len(lost)} of {len(said)} edited facts {verb} no longer said ({names}{more}); {allowed}"
    verdict = "pass" if len(lost) <= gate.lost_facts * len(said) + 1e-9 else "fail"
    ids = [fact["fact"] for fact in lost]
    return {"verdict": verdict, "n": len(said), "lost": ids, "allowed": gate.lost_facts, "reason": reason}


def _overall(
    gate: Gate, tasks: Sequence[Mapping[str, Any]], floor: Mapping[str, Any] | None, unguarded: Sequence[str]
) -> tuple[str, str]:
    lost = [task for task in tasks if task["verdict"] == "fail"]
    open_ = [task for task in tasks if task["verdict"] == "inconclusive"]
    if floor and floor["verdict"] == "fail":
        also = f"; {_named(lost)} lost more than the tolerance" if lost else ""
        return "fail", floor["reason"] + also
    if lost:
        worst = lost[0]
        change = f"{_percent(worst['reference'])} to {_percent(worst['now'])}"
        return "fail", f"{_named(lost)} lost more than the tolerance; the worst is {worst['task']}, from {change}"
    if open_:
        hints = [task["more_items"] for task in open_]
        advice = _advice(None if None in hints else max(hints), each=len(open_) > 1)
        reason = f"the test items do not tell whether {_named(open_)} stayed within the tolerance"
        reason += f"; if the drop stays as it is, {advice}"
        return ("fail", f"{reason} (strict: this counts as fail)") if gate.strict else ("inconclusive", reason)
    if not tasks and unguarded:
        return "pass", f"no task is guarded: what {_listed(unguarded)} lost was not judged"
    if not tasks:
        return "pass", "first task: nothing to lose"
    most = max(tasks, key=lambda task: task["high"])
    what = "the guarded task is kept" if len(tasks) == 1 else f"all {len(tasks)} guarded tasks are kept"
    return "pass", f"{what}; {most['task']} can have lost most, {_points(max(most['high'], 0.0))} at the worst"


def _screen_line(task: Mapping[str, Any], width: int, tolerance: float) -> str:
    scores = f"{_percent(task['reference']):>6} -> {_percent(task['now']):>6}  n={task['n']:<5}"
    own = "" if task["tolerance"] == tolerance else f" (tolerance {_points(task['tolerance'])})"
    return f"{task['verdict']:<12}  {task['task']:<{width}}  {scores}  {_words(task)}{own}"


def _advice(more: int | None, each: bool = False) -> str:
    if more is None:
        return "the drop sits on the tolerance, more test items would not decide"
    return f"about {more:,} more test items{' each' if each else ''} would decide"


def _change(drop: float) -> str:
    return "no change" if abs(drop) < 5e-4 else f"{_points(abs(drop))} {'lost' if drop > 0 else 'gained'}"


def _named(tasks: Sequence[Mapping[str, Any]]) -> str:
    return _listed([task["task"] for task in tasks])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def is_number(value: object) -> bool:
    """Say whether a value of JSON is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(share: float) -> str:
    return f"{100 * share + 0.0:.1f} points"
