"""The table of what arms did to guards, over suites with the same tasks and guards, from their result files.

    python benchmarks/guards_table.py clinc5_guards clinc5_general_guards [--out benchmarks/results] [--against naive]

An arm of a suite with general rows is called ARM + general. Intervals are 95%, over rows; differences are paired row by row.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from perdure.maths.statistics import Interval, paired_difference
from perdure.workflows.bench.compare import compare
from perdure.workflows.bench.comparison import ArmLine, BenchComparison
from perdure.workflows.bench.jobs import results
from perdure.workflows.bench.records import FinishedRun
from perdure.workflows.bench.suite_files import load_suite


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--against", default="naive")
    given = parser.parse_args()
    runs = []
    for name in given.suites:
        suite = load_suite(name)
        more = " + general" if suite.general else ""
        runs += [
            replace(run, arm=run.arm + more) for run in results(suite, given.out)[0] if isinstance(run, FinishedRun)
        ]
    found = compare(runs, given.against)
    drift = next((name for line in found.arms for name, guard in line.guards.items() if guard.drifts), None)
    abilities = [name for name in found.guards if name != drift]
    print_table(found, "arm", columns(drift, abilities))
    if drift:
        print_table(found, f"{drift} `same` after task", stages(found, drift))
        print_steps(runs, drift)
    print_table(found, f"minus {given.against}, paired", minus(found))


def columns(drift: str | None, abilities: list[str]) -> dict[str, Callable[[ArmLine], str]]:
    """Return the columns of the main table by their heads."""
    heads: dict[str, Callable[[ArmLine], str]] = {
        "seeds": lambda line: str(len(line.seeds)),
        "ACC": lambda line: shown(line.acc),
        "BWT": lambda line: shown(line.bwt, signed=True),
    }
    if drift:
        heads |= {
            f"{drift} `same`": lambda line: shown(line.guards[drift].by_stage[-1]),
            "KL, nats a token": lambda line: shown(line.guards[drift].readings["kl"]),
            "length": lambda line: f"{line.guards[drift].readings['length'].value:.2f}",
        }
    for name in abilities:
        heads[name] = lambda line, name=name: ability(line, name)
    heads["worst guard"] = lambda line: (
        f"{line.worst_guard.name} {shown(line.worst_guard, signed=True)}" if line.worst_guard else "-"
    )
    return heads


def ability(line: ArmLine, name: str) -> str:
    """Return the change of an ability, or that it is blind."""
    guard = line.guards[name]
    return "blind" if guard.blind else shown(guard, signed=True)


def stages(found: BenchComparison, drift: str) -> dict[str, Callable[[ArmLine], str]]:
    """Return a column for each task: what is the same after it."""
    number = max(len(line.guards[drift].by_stage) for line in found.arms)
    return {str(i + 1): lambda line, i=i: shown(line.guards[drift].by_stage[i]) for i in range(number)}


def print_steps(runs: list[FinishedRun], drift: str) -> None:
    """Print what each task changed of `same`, row by row, of the runs that were scored after every task."""
    print("| arm, seed | same after a task, less after the one before, paired |\n| --- | --- |")
    for run in runs:
        guard = (run.guards or {}).get(drift)
        if guard and all(guard.stages):
            items = [guard.base.items, *(stage.items for stage in guard.stages if stage)]
            steps = [shown_interval(paired_difference(b, a), signed=True) for a, b in pairwise(items)]
            print(f"| {run.arm}, {run.seed} | {', '.join(steps)} |")
    print()


def minus(found: BenchComparison) -> dict[str, Callable[[ArmLine], str]]:
    """Return a column for ACC and each guard: the arm less the one it is compared with."""
    heads: dict[str, Callable[[ArmLine], str]] = {"ACC": lambda line: shown(line.acc_minus, signed=True)}
    for name in found.guards:
        heads[name] = lambda line, name=name: shown(line.guards_minus.get(name), signed=True)
    return heads


def shown(one: object, *, signed: bool = False) -> str:
    """Return a number with its interval."""
    value, low, high = (getattr(one, key, None) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "-"
    return shown_interval((value, low, high), signed=signed)


def shown_interval(ends: Interval, *, signed: bool = False) -> str:
    """Return a number and the ends of its interval."""
    form = "{:+.3f}" if signed else "{:.3f}"
    return "{} ({} to {})".format(*(form.format(end + 0.0) for end in ends))


def print_table(found: BenchComparison, first: str, heads: dict[str, Callable[[ArmLine], str]]) -> None:
    """Print a Markdown table with a row for each arm that was scored on guards."""
    lines = [line for line in found.arms if line.guards]
    rows = [
        [first, *heads],
        ["---"] * (1 + len(heads)),
        *([line.arm, *(cell(line) for cell in heads.values())] for line in lines),
    ]
    print("\n".join("| " + " | ".join(row) + " |" for row in rows), end="\n\n")


if __name__ == "__main__":
    main()
