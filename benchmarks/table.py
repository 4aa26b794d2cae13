"""The table of a stream benchmark, from its result files."""

import json
from pathlib import Path
from statistics import mean, median

import numpy as np

from perdure.maths.statistics import mean_interval, paired_difference

AGAINST = "plain-replay"


def table(folder: Path, arms: list[str], seeds: list[int]) -> str:
    """Return a Markdown table: final ACC, its difference to plain replay paired by item, learning accuracy, cost."""
    runs: dict[str, dict[int, dict]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["seed"] in seeds:
            runs.setdefault(run["arm"], {})[run["seed"]] = run
    lines = [
        "| arm | seeds | final ACC (95%) | minus plain replay, paired (95%) | learning accuracy | s a task (median) | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in [a for a in arms if a in runs] + sorted(set(runs) - set(arms)):
        own = runs[arm]
        items = np.concatenate([_items(own[s]) for s in sorted(own)])
        value, low, high = mean_interval(items)
        common = sorted(set(own) & set(runs.get(AGAINST, {})))
        gap = "-"
        if common and arm != AGAINST:
            ours = np.concatenate([_items(own[s]) for s in common])
            theirs = np.concatenate([_items(runs[AGAINST][s]) for s in common])
            gap = "{:+.3f} ({:+.3f} to {:+.3f})".format(*paired_difference(ours, theirs))
        learned = [_learning_accuracy(run) for run in own.values() if "learned" in run]
        plastic = f"{mean(learned):.3f}" if learned else "-"
        seconds = median(s for run in own.values() for s in run["seconds"])
        peak = max(run["peak_mib"] for run in own.values())
        lines.append(
            f"| {arm} | {len(own)} | {value:.3f} ({low:.3f} to {high:.3f}) | {gap} | {plastic} | {seconds:.0f} | {peak:.0f} |"
        )
    return "\n".join(lines)


def _items(run: dict) -> np.ndarray:
    return np.concatenate([run["final"][task] for task in run["tasks"]])


def _learning_accuracy(run: dict) -> float:
    return mean(mean(items) for items in run["learned"].values())
