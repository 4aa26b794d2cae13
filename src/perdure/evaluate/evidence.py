"""The evidence that a gate judged, as one JSON object: made from scores, read from a file, and judged again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_json import BadJson, is_number, read_json
from perdure.core.plain_text import clipped, quoted
from perdure.core.records import BadRecord, JsonObject
from perdure.evaluate.gate import NO_GUARDS, decide, guarded_tasks
from perdure.ledger.records import Evidence, FactKept, Gate, GuardItems, ItemScores, Score, Verdict

UNCORRECTED, FORMAT = 1, 2  # the format without guards and without a correction, and the newest one
FACT = tuple(field.name for field in fields(FactKept))


@dataclass(frozen=True)
class GuardedTask:
    """The scores of a task that a gate compares.

    Args:
        version: The task's version.
        learned: Its score when it was learned; None for a task with nothing to lose.
        now: Its score now.
    """

    version: str
    learned: Score | None
    now: Score | None


def make_evidence(
    gate: Gate,
    new_task: str,
    tasks: Mapping[str, GuardedTask],
    facts: Sequence[FactKept] = (),
    unguarded: Sequence[str] = (),
    guards: Mapping[str, GuardItems] = NO_GUARDS,
) -> Evidence:
    """Return the evidence of one `learn`, with its verdict.

    Args:
        gate: The rule.
        new_task: Name of the task just learned.
        tasks: By name. The new task is only needed for the floor; one that is an update of an old one is guarded.
        facts: The edited facts in force.
        unguarded: Names of older tasks that are not judged: `guard` leaves them out, or they have no test row.
        guards: Scores by guard.

    Raises:
        BadInput: A task has no score now, both scores have no test row in common, or a floor is set and the new task is
            not there.
    """
    shared = {name: _shared_items(name, task) for name, task in tasks.items()}
    corrected = gate.correct == "holm" and len(guarded_tasks(shared)) > 1
    return Evidence(
        format=FORMAT if guards or corrected else UNCORRECTED,
        gate=gate,
        new_task=new_task,
        tasks=shared,
        facts=tuple(facts),
        unguarded=tuple(unguarded),
        guards=guards,
        verdict=decide(gate, new_task, shared, facts, unguarded, guards),
    )


def judged_anew(
    evidence: Evidence,
    now: Mapping[str, Score],
    facts: Sequence[FactKept] = (),
    guards: Mapping[str, Score] = MappingProxyType({}),
) -> Evidence:
    """Return the evidence on another state, with its verdict: the same rule, rows and earlier scores.

    Args:
        evidence: On one state.
        now: Score of each of its tasks at the other state, over its rows or more.
        facts: The edited facts in force there.
        guards: Score of each of its guards there.
    """
    tasks = {name: replace(task, now=_items_of(now[name], task.rows)) for name, task in evidence.tasks.items()}
    known = {name: replace(guard, now=_items_of(guards[name], guard.rows)) for name, guard in evidence.guards.items()}
    verdict = _decide_by_format(
        evidence.format, evidence.gate, evidence.new_task, tasks, facts, evidence.unguarded, known
    )
    return replace(evidence, tasks=tasks, facts=tuple(facts), guards=known, verdict=verdict)


def _items_of(score: Score, rows: Sequence[str]) -> tuple[float, ...]:
    by_row = dict(zip(score.rows, score.items, strict=True))
    return tuple(by_row[row] for row in rows)


def _decide_by_format(number: int, gate: Gate, *judged: Any) -> Verdict:
    """Return the verdict by the rule of a format."""
    return decide(replace(gate, correct="none") if number == UNCORRECTED else gate, *judged)


@dataclass(frozen=True)
class Checked:
    """Evidence that was judged again.

    Args:
        verdict: The verdict as computed again.
        differences: Sentences on how the stored one differs; empty if it does not.
    """

    verdict: Verdict
    differences: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """Return the verdict, with the differences as one more key."""
        return {**self.verdict.to_json(), "differences": list(self.differences)}


def check_evidence(path: Path | str) -> Checked:
    """Judge the evidence in a file again, without a model, by the gate that the file states.

    Raises:
        BadInput: The file cannot be read, or is no evidence; the message names the problem and its place.
    """
    evidence = _read(Path(path))
    try:
        gate = Gate.from_json(evidence["gate"])
        tasks = {name: ItemScores.from_json(task) for name, task in evidence["tasks"].items()}
        facts = [FactKept.from_json(fact) for fact in evidence.get("facts", ())]
        guards = {name: GuardItems.from_json(guard) for name, guard in evidence.get("guards", {}).items()}
    except BadSpec as error:
        raise BadInput(f"{path}: {error}") from error
    except BadRecord as error:
        raise BadInput(f"{path} is no gate evidence: {error}; take the file as the gate wrote it") from error
    judged = (evidence["new_task"], tasks, facts, evidence.get("unguarded", ()), guards)
    verdict = _decide_by_format(evidence["format"], gate, *judged)
    stored = evidence["verdict"] if "facts" in evidence else {"facts": None, **evidence["verdict"]}
    return Checked(verdict, tuple(_differences(stored, verdict.to_json())))


def _shared_items(name: str, task: GuardedTask) -> ItemScores:
    """Return the task's items now, and those when learned, over the rows that both scored, in today's order."""
    now, then = task.now, task.learned
    if now is None:
        raise BadInput(f"task {name!r} has no score of the new state; score it before the gate")
    if then is None or then.rows == now.rows:
        return ItemScores(task.version, now.rows, None if then is None else then.items, now.items)
    before = dict(zip(then.rows, then.items, strict=True))
    shared = [(row, before[row], item) for row, item in zip(now.rows, now.items, strict=True) if row in before]
    if not shared:
        raise BadInput(
            f"task {name!r} has no test row that was scored both when it was learned and now; score one part twice"
        )
    rows, learned, present = zip(*shared, strict=True)
    return ItemScores(task.version, rows, learned, present)


def _read(path: Path) -> Any:
    try:
        evidence = read_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not text; give the JSON evidence of a gate") from error
    except BadJson as error:
        line = f", line {error.line}" if error.line else ""
        raise BadInput(f"{path}{line}: not JSON ({error.problem}); give the evidence of a gate") from error
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
    if evidence["format"] not in (UNCORRECTED, FORMAT):
        return f"its format is {quoted(evidence['format'])}, this version reads {UNCORRECTED} and {FORMAT}"
    for full, task in evidence["tasks"].items():
        if problem := _problem_of(f"task {clipped(full, 60)!r}", task, ("learned", "now"), optional="learned"):
            return problem
    guards = evidence.get("guards", {})
    if not isinstance(guards, dict) or (guards and evidence["format"] == UNCORRECTED):
        return "'guards' is not an object of guards by name, or its format has none"
    for full, guard in guards.items():
        if problem := _problem_of(f"guard {clipped(full, 60)!r}", guard, ("before", "now")):
            return problem
    facts = evidence.get("facts", [])
    if not isinstance(facts, list) or not all(_is_fact(fact) for fact in facts):
        return f"'facts' is no list of objects with {', '.join(FACT)}"
    unguarded = evidence.get("unguarded", [])
    if not isinstance(unguarded, list) or not all(isinstance(name, str) for name in unguarded):
        return "'unguarded' is no list of names"
    if evidence["gate"].get("floor") is not None and evidence["new_task"] not in evidence["tasks"]:
        return f"its gate has a floor and it has no scores of the new task {quoted(evidence['new_task'])}"
    return None


def _problem_of(name: str, scored: Any, keys: tuple[str, str], optional: str = "") -> str | None:
    """Return what is wrong with the scores of one task or guard, or None."""
    if not isinstance(scored, dict) or not {"rows", *keys} <= set(scored):
        return f"{name} needs 'rows', {keys[0]!r} and {keys[1]!r}"
    if not isinstance(scored["rows"], list) or not scored["rows"]:
        return f"{name} has no list of rows"
    for key in keys:
        if key == optional and scored[key] is None:
            continue
        if not isinstance(scored[key], list) or len(scored[key]) != len(scored["rows"]):
            return f"{name} has {len(scored['rows'])} rows, and {key!r} is not a list of as many scores"
        wrong = [item for item in scored[key] if not is_number(item) or not 0 <= item <= 1]
        if wrong:
            return f"{name} has {quoted(wrong[0])} among {key!r}; a score lies in [0, 1]"
    groups = scored.get("groups", [])
    if not isinstance(groups, list) or len(groups) not in (0, len(scored["rows"])):
        return f"{name} has {len(scored['rows'])} rows, and 'groups' is not a list of as many names"
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
    if is_number(stored) and is_number(computed):
        same = abs(stored - computed) < 1e-9
    else:
        same = type(stored) is type(computed) and stored == computed
    return [] if same else [f"{where} is {_shown(stored)} in the file, {_shown(computed)} when computed again"]


def _shown(value: object) -> str:
    text = json.dumps(value) if isinstance(value, str | int | float | list | dict | None) else "missing"
    return text if len(text) <= 80 else text[:79] + "…"
