"""Make the table that `perdure recipe advise` stands on, src/perdure/workflows/advise/advice.json, from finished benchmarks.

    python benchmarks/advice.py

It reads benchmarks/results/<suite>/*.json as `perdure bench` leaves them, of the text suites named in SUITES. Run it again
when results have come; what is not there is not in the table, and the advice then says that it was not measured. Arms that a
suite has not, and another suite that learns the same rows has (one with guards beside), are taken from there.

An entry of "suites": name, about, model, parameters, tasks (how many), tasks_are ("alike" or "different"), and arms, each with
arm, recipe (as written, without the suite's own settings), seeds, acc, learning_accuracy, forgetting, train_ratio,
memory_rows, memory_bytes (text and columns), state_bytes, acc_minus: by arm with less ACC, the difference by test row over the
seeds that both have ({"value", "low", "high"}), where the two intervals of ACC overlap or that of the difference holds 0. An
arm that is not in it, and shares a seed, is below by both. An arm with a router has acc_routed (ACC where no request names its
task) and routed_minus (that ACC less every other arm's); an arm from another suite has "suite".

"rehearsal" is what general instructions kept, on the suite REHEARSED: pairs of arms that differ in nothing but
`instruction_replay`, each with suite, arm (which has it), without, seeds, acc_minus and train_ratio (with it, less and over
without), and watched: by name what the base model scored ("base"), what both score after all tasks ("without", "with"), and
the difference by row ("minus": {"value", "low", "high", "n"}).
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from perdure.bridges.sizes import sizes
from perdure.core.settings import Settings
from perdure.workflows.advise.table import TABLE
from perdure.workflows.bench.compare import BASELINE, by_arm, compare, paired, watched_minus
from perdure.workflows.bench.comparison import ArmLine, Estimate
from perdure.workflows.bench.jobs import results
from perdure.workflows.bench.records import FinishedRun
from perdure.workflows.bench.suite import Suite
from perdure.workflows.bench.suite_files import load_suite, suite_names

RESULTS = Path(__file__).parent / "results"
SUITES = {  # not clinc3: its rows were tuned on
    "clinc5": "alike",
    "clinc10": "alike",
    "clinc50": "alike",
    "olora4": "different",
    "olora15": "different",
    "trace6": "different",
    "gen6": "different",
}
REHEARSED, REHEARSING = "clinc5_instruct", "instruction_replay"
LEAST = 8  # arms; the suite nearest to what a user has is asked alone, and must know more than one way
GAP = ("value", "low", "high")
KEPT = ("arm", "seeds", "acc", "learning_accuracy", "forgetting", "train_ratio")


def measured(name: str, tasks_are: str, folder: Path) -> dict | None:
    """Return a suite's entry of the table, None where its baseline or most methods were not measured."""
    suite = load_suite(name)
    runs, stale = results(suite, folder)
    if stale:
        print(f"{name}: {stale} results of another version of the suite left out", file=sys.stderr)
    arms, lines = by_arm(runs), list(compare(runs).arms)
    elsewhere = {}
    for other in _same_rows(suite, folder):
        more, _ = results(other, folder)
        fresh = {arm: own for arm, own in by_arm(more).items() if arm not in arms}
        elsewhere |= dict.fromkeys(fresh, other.name)
        arms |= fresh
        lines += [line for line in compare(more).arms if line.arm in fresh]  # its time is beside the baseline's there
    lines.sort(key=lambda line: -(line.acc.value or 0.0))
    if BASELINE not in arms or len(arms) < LEAST:  # nothing to say what a method gains, or too little to choose from
        return None
    again = {name for name, own in arms.items() if name != BASELINE and own[0].arm_hash == arms[BASELINE][0].arm_hash}
    lines = [line for line in lines if line.arm not in again]  # the baseline under another label, for its time
    return {
        "name": name,
        "about": suite.about.strip(),
        "model": suite.model,
        "parameters": sizes(suite.model, Settings()).parameters,
        "tasks": len(suite.tasks),
        "tasks_are": tasks_are,
        "arms": [
            {
                **_arm(line, suite, arms[line.arm]),
                "acc_minus": _minus(line, lines[place:], arms),
                **_routed(line, lines, arms),
                **({"suite": elsewhere[line.arm]} if line.arm in elsewhere else {}),
            }
            for place, line in enumerate(lines, start=1)
        ],
    }


def _same_rows(suite: Suite, folder: Path) -> list[Suite]:
    """Return the other suites with results that learn the same rows in the same way, and score more beside."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name in suite_names())
    others = [load_suite(name) for name in names if name != suite.name]
    return [other for other in others if other.learned == suite.learned]


def _routed(line: ArmLine, lines: list[ArmLine], arms: dict[str, list[FinishedRun]]) -> dict:
    """Return ACC where no request names its task, and that less every other arm's; nothing without a router."""
    if line.acc_routed is None:
        return {}
    gaps = {other.arm: _unnamed_minus(arms[line.arm], arms[other.arm]) for other in lines if other is not line}
    minus = {name: {key: round(getattr(gap, key), 4) for key in GAP} for name, gap in gaps.items() if gap}
    return {"acc_routed": _rounded(line.acc_routed.to_json()), **({"routed_minus": minus} if minus else {})}


def _unnamed_minus(ours: list[FinishedRun], theirs: list[FinishedRun]) -> Estimate | None:
    """Return the difference of final scores where no request names its task, paired by test row over shared seeds."""
    return paired([_unnamed(run) for run in ours], [_unnamed(run) for run in theirs])


def _unnamed(run: FinishedRun) -> FinishedRun:
    """Return a run whose final scores are of requests that do not name their task."""
    if run.routed is None:
        return run
    routed = run.routed.items
    items = {
        task: replace(own, scores=(*own.scores[:-1], tuple(routed[task]))) if task in routed else own
        for task, own in run.items.items()
    }
    return replace(run, items=items)


def _arm(line: ArmLine, suite: Suite, mine: list[FinishedRun]) -> dict:
    """Return one arm: the newest recipe under its label, and its last state's bytes as the mean over seeds."""
    newest, told = max(mine, key=lambda run: run.time), line.to_json()
    stored = {key: sum(getattr(run.stored, key) for run in mine) // len(mine) for key in newest.stored.to_json()}
    return {
        **{key: _rounded(told[key]) for key in KEPT},
        "recipe": {key: value for key, value in newest.written.items() if key not in suite.settings},
        "memory_rows": sum(rows_kept(run, suite) for run in mine) // len(mine),
        "memory_bytes": stored["memory_rows"] + stored["memory_columns"],
        "state_bytes": stored["method_state"],
    }


def _minus(line: ArmLine, lower: list[ArmLine], arms: dict[str, list[FinishedRun]]) -> dict:
    """Return ACC minus that of each arm below it, paired by test row, where the two intervals alone could mislead."""
    found = {}
    for other in lower:
        gap = paired(arms[line.arm], arms[other.arm])
        if gap and (other.acc.high >= line.acc.low or gap.low <= 0):
            found[other.arm] = {key: round(getattr(gap, key), 4) for key in GAP}
    return found


def rehearsal(name: str, folder: Path) -> list[object]:
    """Return what rehearsing general instructions kept and cost, by every pair of arms that shows it."""
    runs, _ = results(load_suite(name), folder)
    arms, lines = by_arm(runs), {line.arm: line for line in compare(runs).arms}
    return [
        _rounded(_pair(name, lines[arm], lines[other], arms))
        for arm, mine in arms.items()
        for other, theirs in arms.items()
        if lines[arm].train_ratio
        and lines[other].train_ratio
        and REHEARSING in mine[0].recipe["methods"]
        and _bare(mine[0].recipe) == _bare(theirs[0].recipe, drop="")
    ]


def _bare(recipe: dict, drop: str = REHEARSING) -> dict:
    """Return a recipe without its name, and without a method."""
    return {**recipe, "name": None, "methods": {key: value for key, value in recipe["methods"].items() if key != drop}}


def _pair(suite: str, line: ArmLine, other: ArmLine, arms: dict[str, list[FinishedRun]]) -> dict:
    mine, theirs = arms[line.arm], arms[other.arm]
    minus, gap = watched_minus(mine, theirs), paired(mine, theirs)
    return {
        "suite": suite,
        "arm": line.arm,
        "without": other.arm,
        "seeds": list(line.seeds),
        "acc_minus": gap and gap.to_json(),
        "train_ratio": line.train_ratio.value / other.train_ratio.value,
        "watched": {
            name: {
                "base": told.before,
                "without": other.watched[name].after,
                "with": told.after,
                "minus": minus[name].to_json(),
            }
            for name, told in line.watched.items()
        },
    }


def rows_kept(run: FinishedRun, suite: Suite) -> int:
    """Return how many rows the last state remembers, from its labels: the suites give every label the same test rows."""
    if not run.stored.memory_rows:
        return 0
    last = run.matrix.n[-1]
    labels = sum(n // task.test.per_label for n, task in zip(last, suite.tasks, strict=True))
    return min(labels * run.recipe["memory_per_label"], run.recipe["memory_size"])


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main(folder: Path = RESULTS, table: Path = TABLE) -> None:
    found = [entry for name, tasks_are in SUITES.items() if (entry := measured(name, tasks_are, folder))]
    made = {"made_by": "benchmarks/advice.py", "suites": found, "rehearsal": rehearsal(REHEARSED, folder)}
    table.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    told = ", ".join(f"{entry['name']} with {len(entry['arms'])} arms" for entry in found) or "nothing measured yet"
    print(f"{table}: {told}")


if __name__ == "__main__":
    main()
