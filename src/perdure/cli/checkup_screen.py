"""A checkup as one screen of text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from perdure.cli.output import short
from perdure.ledger.records import GuardVerdict
from perdure.workflows.checkup.cost import MEAN
from perdure.workflows.checkup.readings import DRIFT, KNOWLEDGE
from perdure.workflows.checkup_records import Change, Checkup, Cost, GuardReading, Reading, TaskReading
from perdure.workflows.guards.kinds import KindChange

KINDS = 6  # of rows of a guard on the screen: those that changed most
SHOWN = 8  # tasks on the screen: those that lost most; the rest are counted
NEWLINE = "\n"


def checkup_screen(checkup: Checkup, aliases: Mapping[str, str]) -> str:
    """Return a checkup as lines: tasks, abilities, facts, drift, the verdict and the cost.

    Args:
        checkup: The checkup.
        aliases: Alias by name of the task.
    """
    verdict = checkup.gate
    guards = {one.guard: one for one in verdict.guards.guards} if verdict.guards else {}
    title = f"checkup of {checkup.ref} against {checkup.against}, budget {checkup.budget}"
    parts = [
        ("tasks", _tasks(checkup, aliases)),
        ("abilities", _guards(checkup.guards, guards, lambda ability: ability not in (*KNOWLEDGE, DRIFT))),
        ("facts", _guards(checkup.guards, guards, lambda ability: ability in KNOWLEDGE)),
        ("drift", _drift(checkup)),
    ]
    lines = [title, f"gate: {verdict.verdict.upper()}: {verdict.reason}", ""]
    for number, (name, rows) in enumerate(parts, start=1):
        rows = rows or ["not measured"]
        lines += [f"{number} {name:<11}{rows[0]}", *(f"  {'':<11}{row}" for row in rows[1:])]
    if (kept := verdict.guards) and (mean := kept.mean) and (worst := kept.worst) and mean.guards > 1:
        lines += [
            "",
            f"mean of {mean.guards} abilities {_signed(-mean.drop)} ({_signed(-mean.high)} to {_signed(-mean.low)}); "
            f"worst {worst.guard} {_signed(-worst.drop)} ({_signed(-worst.high)} to {_signed(-worst.low)}, all together)",
        ]
    advice = verdict.guards.advice if verdict.guards else ()
    return NEWLINE.join([*lines, *(f"what to do: {text}" for text in advice), "", _cost(checkup.cost)])


def _tasks(checkup: Checkup, aliases: Mapping[str, str]) -> list[str]:
    readings = sorted(checkup.tasks.items(), key=lambda pair: _lost(pair[1]))
    shown = readings[:SHOWN]
    width = max((len(aliases.get(name, name)) for name, _ in shown), default=0)
    lines = [_task(aliases.get(name, name), one, width) for name, one in shown]
    if len(readings) > SHOWN:
        lines.append(f"... and {len(readings) - SHOWN} more, which lost less")
    metrics = {"acc": "ACC", "bwt": "BWT"}
    known = {label: checkup.metrics.get(name) for name, label in metrics.items()}
    numbers = [f"{label} {100 * value:.1f}" for label, value in known.items() if value is not None]
    return [*lines, "  ".join(numbers)] if numbers else lines


def _task(name: str, one: TaskReading, width: int) -> str:
    learned = f"{_percent(one.learned)} when learned, " if one.learned is not None else ""
    change = f" ({_signed(one.now - one.learned)})" if one.learned is not None else ""
    return f"{name:<{width}}  {learned}{_percent(one.now)} now{change}  {_interval(one)}  n {one.n}"


def _guards(
    readings: Mapping[str, GuardReading], verdicts: Mapping[str, GuardVerdict], wanted: Callable[[str], bool]
) -> list[str]:
    chosen = {name: one for name, one in readings.items() if wanted(one.ability)}
    names = max(map(len, chosen), default=0)
    kinds = max((len(one.ability) for one in chosen.values()), default=0)
    order = sorted(chosen.items(), key=lambda pair: (pair[1].blind, pair[1].ability, pair[0]))
    return [
        line
        for name, one in order
        for line in (
            f"{one.ability:<{kinds}}  {name:<{names}}  {_guard(one, verdicts.get(name))}",
            *(_kinds(one.kinds) if not one.blind else ()),
        )
    ]


def _kinds(kinds: Sequence[KindChange]) -> list[str]:
    """Return a line for each of the kinds that changed most, and one that counts the others; nothing where none changed."""
    changed = [one for one in kinds if one.changed]
    shown = changed[:KINDS]
    width = max((len(one.kind) for one in shown), default=0)
    lines = [
        f"  {one.kind:<{width}}  {_percent(one.before):>5} -> {_percent(one.now):>5}  "
        f"{one.lost} lost, {one.gained} gained of {one.n}"
        for one in shown
    ]
    rest = [f"{len(changed) - KINDS} more changed"] if len(changed) > KINDS else []
    still = len(kinds) - len(changed)
    rest += [f"{still} did not change"] if changed and still else []
    return [*lines, f"  of the other kinds {', '.join(rest)}"] if rest else lines


def _guard(one: GuardReading, verdict: GuardVerdict | None) -> str:
    n = f"n {one.n}" + (" selected" if one.selected else "") + (f" in {one.groups} groups" if one.groups else "")
    if one.blind:
        return f"blind: {_percent(one.base)} is no better than chance or nothing, so that no fall can be seen  {n}"
    word = f"  {verdict.verdict.upper() if verdict.verdict == 'fail' else verdict.verdict}" if verdict else ""
    kept = f"; of {one.kept.n} known before, {_percent(one.kept.now)} kept {_interval(one.kept)}" if one.kept else ""
    against = f"  against {short(one.reference)}" if one.reference else ""
    return f"{_percent(one.base)} -> {_percent(one.now)}  {_change(one.change)}  {n}{word}{kept}{against}"


def _drift(checkup: Checkup) -> list[str]:
    found = {field.name: getattr(checkup.instruction_drift, field.name) for field in fields(checkup.instruction_drift)}
    readings: dict[str, Reading] = {name: one for name, one in found.items() if one is not None}
    width = max((8, *map(len, readings)))
    lines = []
    for name, one in readings.items():
        unit = " nats a token" if name == "kl" else ""
        base = "" if one.base is None or name == "kl" else f"{one.base:.2f} -> "
        other = "" if one.unrelated is None else f", {one.unrelated:.2f} for answers to other prompts"
        lines.append(f"{name:<{width}}  {base}{one.now:.2f}{unit} ({one.low:.2f} to {one.high:.2f}){other}  n {one.n}")
    return lines


def _cost(cost: Cost) -> str:
    more = ""
    if cost.next_budget:
        time = "" if cost.next_seconds is None else f" would take about {_duration(cost.next_seconds)} more"
        more = f"; --budget {cost.next_budget}{time or ' measures more rows'}"
        if cost.next_decides:
            names = [f"the {MEAN}" if name == MEAN else name for name in cost.next_decides]
            more += f"; if the changes stay as they are, it decides {', '.join(names)}"
    return f"cost: {_duration(cost.seconds)}, {cost.items:,} items{more}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _lost(one: TaskReading) -> float:
    return 0.0 if one.learned is None else one.now - one.learned


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _interval(one: Reading) -> str:
    return f"({100 * one.low:.1f} to {100 * one.high:.1f})"


def _change(change: Change | None) -> str:
    return "" if change is None else f"{_signed(change.mean)} ({_signed(change.low)} to {_signed(change.high)})"
