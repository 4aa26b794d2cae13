"""The result of a learn, and of a dry run, in the terminal."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import typer

from perdure.cli.output import (
    NOTHING,
    clip,
    counted,
    facts,
    interval,
    percent,
    print_message,
    print_text,
    short,
    table,
    warn,
)

if TYPE_CHECKING:
    from perdure.core.records import JsonObject
    from perdure.evaluate.routing import RoutingAccuracy
    from perdure.ledger import Ledger
    from perdure.ledger.records import GateOff, Repair, ScoreSummary, Verdict
    from perdure.workflows.inspect.score_views import ScoreCells
    from perdure.workflows.learn.preview import Preview
    from perdure.workflows.learn.record import LearnResult


def show_result(result: "LearnResult", ledger: "Ledger") -> None:
    """Print what was learned, each task before and after, and the gate's screen."""
    from perdure.workflows.inspect.score_views import score_table

    shown, task = ledger.shown_name, ledger.shown_name(result.task)
    scores = score_table(ledger, ledger.resolve(result.entry))
    speed = f"{result.train_seconds:.1f} s of training, {result.eval_seconds:.1f} s of scoring"
    peak = f"peak memory {result.resources.peak_mib:,} MiB of {result.resources.peak_of}"
    print_text(f"learned {task}: entry {short(result.entry)}, {result.tokens:,} tokens, {speed}, {peak}\n")
    print_text(score_lines(ledger.by_shown_name(_with_earlier(scores, result)), task) + "\n")
    for other, earlier in (result.earlier or {}).items():
        print_text(
            f"{shown(other)} was not scored at head before this; 'before' is its score at entry {short(earlier.entry)}\n"
        )
    if result.routing and result.routed:
        print_text(routed_line(result.routed, result.routing) + "\n")
    if result.repair:
        print_text(_repair_lines(result.repair, ledger) + "\n")
    from perdure.workflows.guards.judge import WARNS  # only here: it loads numpy

    undecided = result.gate.verdict == "inconclusive"  # then `conclude` prints the reason
    warned = any(text.startswith(WARNS) for text in result.warnings)
    print_text(gate_screen(result.gate, ledger.aliases, reason=not undecided, advice=not warned))


def routed_line(routed: "Mapping[str, ScoreSummary]", routing: "RoutingAccuracy") -> str:
    """Return in a line what tasks score where no request names them, and how many test rows found their task."""
    mean = sum(one.score for one in routed.values()) / len(routed)
    return f"without the tasks' names: {100 * mean:.1f}% in the mean; {routing.line}"


def _repair_lines(repair: "Repair", ledger: "Ledger") -> str:
    """Return a table of the scales that were tried, the verdict of the gate on each, and each task's score."""
    rows = [
        [f"{one.scale:g}", one.verdict, *(f"{100 * mean:.1f}" for mean in one.scores.values())] for one in repair.tried
    ]
    names = [ledger.shown_name(name) for name in repair.tried[0].scores]
    lines = table([repair.by, "gate", *names], rows, right=(0, *range(2, 2 + len(names))))
    return f"{counted(repair.directions, 'intruder direction')}\n{lines}" if repair.directions else lines


def _with_earlier(scores: "Mapping[str, ScoreCells]", result: "LearnResult") -> "dict[str, ScoreCells]":
    """Return the scores with those that the gate compares with, where head was not scored before."""
    earlier = result.earlier or {}
    return {
        task: replace(cells, before=earlier[task].score) if task in earlier else cells for task, cells in scores.items()
    }


def gate_screen(
    verdict: "Verdict | GateOff", aliases: "Mapping[str, str]", *, reason: bool = True, advice: bool = True
) -> str:
    """Return what a gate decided, as a screen of text, each renamed task under its alias; see `evaluate.gate.screen`."""
    from perdure.evaluate.gate import renamed, screen

    if verdict.verdict == "off":
        return f"gate: OFF, {verdict.reason}"
    return screen(renamed(verdict, aliases), reason=reason, advice=advice).rstrip()


def reason_of(verdict: "Verdict | GateOff", aliases: "Mapping[str, str]") -> str:
    """Return the sentence of a gate, each renamed task under its alias."""
    if verdict.verdict == "off" or not aliases:
        return verdict.reason
    from perdure.evaluate.gate import renamed  # only here: it loads numpy

    return renamed(verdict, aliases).reason


def score_lines(scores: "Mapping[str, ScoreCells]", learned: str | None = None) -> str:
    """Return a table of scores before and now; a star marks the task just learned."""
    rows = []
    for task, cells in scores.items():
        now = cells.now
        name = f"{task} *" if task == learned else task
        measured = [now.n, now.scorer] if now else [NOTHING, NOTHING]
        rows.append([name, percent(cells.before), percent(now), interval(now), *measured])
    return table(["task", "before", "now", "95% interval", "n", "scorer"], rows, right=(1, 2, 3, 4))


def change_lines(before: "Mapping[str, ScoreSummary]", now: "Mapping[str, ScoreSummary]") -> str:
    """Return a table of the scores of tasks before and after a change of the weights."""
    from perdure.workflows.inspect.score_views import ScoreCells

    return score_lines({task: ScoreCells(before.get(task), score) for task, score in now.items()})


def conclude(result: "LearnResult", aliases: "Mapping[str, str]") -> None:
    """Print a verdict that is not a plain pass, and exit with 3 if the gate failed."""
    verdict, head = result.gate.verdict, short(result.entry)
    reason = reason_of(result.gate, aliases)
    if verdict == "inconclusive":
        from perdure.evaluate.gate import TO_DECIDE

        print_message(f"INCONCLUSIVE: {reason}. Head moved to {head} all the same.", fg="yellow", bold=True)
        print_message(f"{TO_DECIDE}, and 'perdure rollback head~1' goes back")
    if verdict == "fail":
        print_message(f"GATE FAILED: {reason}.", fg="red", bold=True)
        offer = "'perdure accept' or 'perdure discard'"
        if result.repair:
            tried = ", ".join(f"{one.scale:g}" for one in result.repair.tried)
            share = f"Scaled by {tried}" if result.repair.by == "scale" else f"With {tried} of its intruder directions"
            print_message(f"{share} the update fails too.", fg="red")
        else:
            offer = "'perdure accept', 'perdure discard' or 'perdure learn --repair'"
        print_message(f"Head stays; entry {head} waits for {offer}.")
        raise typer.Exit(3)


def show_preview(preview: "Preview", ledger: "Ledger") -> None:
    """Print a dry run. The parts of the example that are not trained are dim, and their lines have no > in front."""
    from perdure.report.words import duration  # only here: it loads numpy

    parts, unread, tokens, takes = preview.rows, preview.unread, preview.tokens, preview.estimate
    made = " (made from the train rows)" if preview.test_made else ""
    pairs = {
        "task": f"{ledger.shown_name(preview.task)}{', more data for a known task' if preview.update else ''}",
        "format": preview.format,
        "rows": f"{parts['train']} train, {parts['validation']} validation, {parts['test']} test{made}",
        "labels": preview.labels or None,
        "not read": ", ".join(clip(name, 40) for name in unread[:8])
        + (f" and {len(unread) - 8} more" if len(unread) > 8 else ""),
        "general": preview.general and counted(preview.general, "row"),
        "scorer": ", ".join(f"{key}: {value}" for key, value in preview.scorer.items()),
        "tokens": f"{tokens.median:,} in a usual row, {tokens.longest:,} in the longest; {tokens.trained:,} are trained",
        "cut": f"{preview.cut} of {parts['train']} rows, at max_length {preview.max_length}",
        "updates": f"{preview.updates:,}",
        "takes": takes
        and f"about {duration(takes.seconds)}, and {takes.peak_mib:,} MiB of memory; {takes.tokens:,} tokens run forward",
        "guards": takes
        and takes.guard_items
        and f"{counted(takes.guard_items, 'item')}, about {duration(takes.guard_seconds)} of that",
    }
    print_text(facts({name: value for name, value in pairs.items() if value != 0}))
    print_text("\nexample (> is trained)")
    for part in preview.example:
        for line in part.text.split("\n"):
            print_text(f"  {'>' if part.trained else '|'} {line}", dim=not part.trained)
    _show_recipe(preview.recipe, preview.changed)
    for text in preview.notices:
        warn(text)
    print_message("dry run: nothing was changed")


def _show_recipe(recipe: "JsonObject", changed: "JsonObject") -> None:
    """Print a recipe, what the user changed in it first."""
    methods = cast("Mapping[str, JsonObject]", recipe["methods"])
    print_text(f"\nrecipe {recipe['name']}")
    for key, value in changed.items():
        print_text(f"  {key}: {'left out' if value is None else value} (changed)")
    known = {"name", "methods", *changed}
    print_text(facts({f"  {key}": value for key, value in recipe.items() if key not in known}))
    for name, fields in methods.items():
        print_text(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in fields.items()))
