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

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from perdure.core.errors import BadInput, BadSpec
from perdure.core.keyed import seed_of
from perdure.maths.statistics import items_needed, paired_difference

FORMAT = 1
SHOWN = 15  # tasks on the screen; the rest are passed ones, counted
NAMED = 3  # lost facts that the reason names
FACT = ("fact", "prompt", "target", "before", "now")
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
        own = {f"tolerance of {task}": value for task, value in self.tolerances.items()}
        for name, value in {"tolerance": self.tolerance, **own}.items():
            if not _is_number(value) or not 0 <= value < 1:
                raise BadSpec(f"gate {name} is {value!r}; give a share from 0 to below 1, as 0.03 for 3 points")
        if not _is_number(self.confidence) or not 0.5 < self.confidence < 1:
            raise BadSpec(f"gate confidence is {self.confidence!r}; give a number between 0.5 and 1, as 0.95")
        if self.floor is not None and (not _is_number(self.floor) or not 0 <= self.floor <= 1):
            raise BadSpec(f"gate floor is {self.floor!r}; give a score from 0 to 1, or none")
        if not _is_number(self.lost_facts) or not 0 <= self.lost_facts <= 1:
            raise BadSpec(f"gate lost_facts is {self.lost_facts!r}; give a share of the edited facts, from 0 to 1")
        if not isinstance(self.strict, bool):
            raise BadSpec(f"gate strict is {self.strict!r}; write true or false")

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
            raise BadSpec(f"unknown gate setting {unknown[0]!r}; known: {', '.join(f.name for f in fields(cls))}")
        if not isinstance(data.get("tolerances", {}), Mapping):
            raise BadSpec(f"gate tolerances are {data['tolerances']!r}; write a mapping of task name to tolerance")
        return cls(**data)


def make_evidence(
    gate: Gate, new_task: str, tasks: Mapping[str, Mapping[str, Any]], facts: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the evidence of one `learn`, with its verdict.

    Args:
        gate: The rule.
        new_task: Name of the task just learned.
        tasks: By name `{"version", "learned", "now"}`: the task's version, and its Score records (or any dict with
            "rows" and "items") when it was learned and now. `learned` is None for a task with nothing to lose, such as
            the new one, which is only needed for the floor. A new task that is an update of an old one has both and is
            guarded.
        facts: The edited facts in force, each `{"fact", "prompt", "target", "before", "now"}`: its id, its texts, and whether
            it was said before the learn and is said after it.

    Raises:
        BadInput: A task has no score now, both scores have no test row in common, or a floor is set and the new task is
            not there.
    """
    evidence = {
        "format": FORMAT,
        "gate": gate.to_json(),
        "new_task": new_task,
        "tasks": {name: _shared_items(name, task) for name, task in tasks.items()},
        "facts": [{key: fact[key] for key in FACT} for fact in facts],
    }
    return evidence | {"verdict": decide(gate, evidence)}


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
    verdict, reason = _overall(gate, tasks, floor)
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


def check_evidence(path: Path | str) -> dict[str, Any]:
    """Judge the evidence in a file again, without a model, by the gate that the file states.

    Returns:
        The verdict as recomputed, with "differences": sentences on how the stored one differs; empty if it does not.

    Raises:
        BadInput: The file cannot be read, or is no evidence; the message says what is wrong and where.
    """
    evidence = _read(Path(path))
    try:
        gate = Gate.from_json(evidence["gate"])
    except BadSpec as error:
        raise BadInput(f"{path}: {error}") from error
    verdict = decide(gate, evidence)
    return verdict | {"differences": _differences(evidence["verdict"], verdict)}


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


def _overall(gate: Gate, tasks: Sequence[Mapping[str, Any]], floor: Mapping[str, Any] | None) -> tuple[str, str]:
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
    if not tasks:
        return "pass", "first task: nothing to lose"
    most = max(tasks, key=lambda task: task["high"])
    what = "the guarded task is kept" if len(tasks) == 1 else f"all {len(tasks)} guarded tasks are kept"
    return "pass", f"{what}; {most['task']} can have lost most, {_points(max(most['high'], 0.0))} at the worst"


def _shared_items(name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """The task's items now, and those when learned, over the rows that both scored, in today's order."""
    now, then = task["now"], task["learned"]
    if now is None:
        raise BadInput(f"task {name!r} has no score of the new state; score it before the gate")
    if then is None or then["rows"] == now["rows"]:
        items = None if then is None else list(then["items"])
        shape = {"version": task["version"], "rows": list(now["rows"]), "learned": items, "now": list(now["items"])}
    else:
        before = dict(zip(then["rows"], then["items"], strict=True))
        shared = [
            (row, before[row], item) for row, item in zip(now["rows"], now["items"], strict=True) if row in before
        ]
        keys = ("rows", "learned", "now")
        shape = {"version": task["version"], **{key: [triple[k] for triple in shared] for k, key in enumerate(keys)}}
    if not shape["rows"]:
        raise BadInput(
            f"task {name!r} has no test row that was scored both when it was learned and now; score one part twice"
        )
    return shape


def _read(path: Path) -> dict[str, Any]:
    try:
        evidence: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not text; give the JSON evidence of a gate") from error
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}, line {error.lineno}: not JSON ({error.msg}); give the evidence of a gate") from error
    problem = _problem(evidence)
    if problem:
        raise BadInput(f"{path} is no gate evidence: {problem}; take the file as the gate wrote it")
    return evidence


def _problem(evidence: Any) -> str | None:
    """What is wrong with the shape of `evidence`, or None."""
    kinds = {"format": int, "gate": dict, "new_task": str, "tasks": dict, "verdict": dict}
    if not isinstance(evidence, dict):
        return "it is not a JSON object"
    for key, kind in kinds.items():
        if not isinstance(evidence.get(key), kind):
            return f"{key!r} is missing or is not {'an object' if kind is dict else f'of type {kind.__name__}'}"
    if evidence["format"] != FORMAT:
        return f"its format is {evidence['format']}, this version reads {FORMAT}"
    for name, task in evidence["tasks"].items():
        if not isinstance(task, dict) or not {"rows", "learned", "now"} <= set(task):
            return f"task {name!r} needs 'rows', 'learned' and 'now'"
        if not isinstance(task["rows"], list) or not task["rows"]:
            return f"task {name!r} has no list of rows"
        for key in ("learned", "now") if task["learned"] is not None else ("now",):
            if not isinstance(task[key], list) or len(task[key]) != len(task["rows"]):
                return f"task {name!r} has {len(task['rows'])} rows, and {key!r} is not a list of as many scores"
            wrong = [item for item in task[key] if not _is_number(item) or not 0 <= item <= 1]
            if wrong:
                return f"task {name!r} has {wrong[0]!r} among {key!r}; a score lies in [0, 1]"
    facts = evidence.get("facts", [])
    if not isinstance(facts, list) or not all(_is_fact(fact) for fact in facts):
        return f"'facts' is no list of objects with {', '.join(FACT)}"
    if evidence["gate"].get("floor") is not None and evidence["new_task"] not in evidence["tasks"]:
        return f"its gate has a floor and it has no scores of the new task {evidence['new_task']!r}"
    return None


def _is_fact(fact: Any) -> bool:
    return (
        isinstance(fact, dict)
        and set(FACT) <= set(fact)
        and all(isinstance(fact[key], str) for key in FACT[:3])
        and all(isinstance(fact[key], bool) for key in FACT[3:])
    )


def _differences(stored: Any, computed: Any, where: str = "verdict") -> list[str]:
    """Sentences on every value in which `stored` differs from `computed`, numbers beyond rounding."""
    if isinstance(stored, dict) and isinstance(computed, dict):
        keys = [*computed, *(key for key in stored if key not in computed)]
        nothing = object()
        pairs = [(stored.get(key, nothing), computed.get(key, nothing), f"{where}.{key}") for key in keys]
        return [line for a, b, place in pairs for line in _differences(a, b, place)]
    if isinstance(stored, list) and isinstance(computed, list) and len(stored) == len(computed):
        return [
            line
            for k, (a, b) in enumerate(zip(stored, computed, strict=True))
            for line in _differences(a, b, f"{where}[{k}]")
        ]
    if _is_number(stored) and _is_number(computed):
        same = abs(stored - computed) < 1e-9
    else:
        same = type(stored) is type(computed) and stored == computed
    return [] if same else [f"{where} is {_told(stored)} in the file, {_told(computed)} when computed again"]


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
    names = [task["task"] for task in tasks]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _told(value: object) -> str:
    text = json.dumps(value) if isinstance(value, str | int | float | list | dict | None) else "missing"
    return text if len(text) <= 80 else text[:79] + "…"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(share: float) -> str:
    return f"{100 * share + 0.0:.1f} points"
