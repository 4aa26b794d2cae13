"""The table of a stream benchmark, from its result files."""

import json
from pathlib import Path

import numpy as np

from perdure.maths.statistics import mean_interval, paired_difference

AGAINST = "plain-replay"
PAIRS = (  # what is compared, ours, theirs
    ("final", "naive", "plain-naive"),
    ("final", "dual_replay", "naive"),
    ("learned", "dual_replay", "naive"),
)


def table(folder: Path, arms: list[str], seeds: list[int]) -> str:
    """Return a Markdown table: final ACC, its difference to plain replay paired by item, learning accuracy, cost."""
    runs: dict[str, dict[int, dict]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["seed"] in seeds:
            runs.setdefault(run["arm"], {})[run["seed"]] = run
    lines = [
        "| arm | seeds | final ACC (95%) | minus plain replay, paired (95%) | learning accuracy (95%) | peak MiB, first seed |",
        "|---|---|---|---|---|---|",
    ]
    for arm in [a for a in arms if a in runs] + sorted(set(runs) - set(arms)):
        own = runs[arm]
        final = "{:.3f} ({:.3f} to {:.3f})".format(
            *mean_interval(np.concatenate([_final(own[s]) for s in sorted(own)]))
        )
        common = sorted(set(own) & set(runs.get(AGAINST, {})))
        gap = "-"
        if common and arm != AGAINST:
            ours = np.concatenate([_final(own[s]) for s in common])
            theirs = np.concatenate([_final(runs[AGAINST][s]) for s in common])
            gap = "{:+.3f} ({:+.3f} to {:+.3f})".format(*paired_difference(ours, theirs))
        learned = [_learned(run) for run in own.values() if "learned" in run]
        plastic = "{:.3f} ({:.3f} to {:.3f})".format(*mean_interval(np.concatenate(learned))) if learned else "-"
        peak = own[min(own)]["peak_mib"]
        lines.append(f"| {arm} | {len(own)} | {final} | {gap} | {plastic} | {f'{peak:.0f}' if peak else '-'} |")
    return "\n".join([*lines, "", *_pairs(runs)])


def _final(run: dict) -> np.ndarray:
    return np.concatenate([run["final"][task] for task in run["tasks"]])


def _learned(run: dict) -> np.ndarray:
    return np.concatenate([run["learned"][task] for task in run["tasks"]])


def _pairs(runs: dict[str, dict[int, dict]]) -> list[str]:
    """Return the lines of a table of paired differences, over the seeds that both arms have."""
    lines = ["| paired difference | seeds | n | value (95%) |", "|---|---|---|---|"]
    for what, ours, theirs in PAIRS:
        seeds = sorted(set(runs.get(ours, {})) & set(runs.get(theirs, {})))
        if not seeds:
            continue
        items = _final if what == "final" else _learned
        a, b = (np.concatenate([items(runs[arm][seed]) for seed in seeds]) for arm in (ours, theirs))
        name = "final ACC" if what == "final" else "learning accuracy"
        told = "{:+.3f} ({:+.3f} to {:+.3f})".format(*paired_difference(a, b))
        lines.append(f"| {name}: {ours} minus {theirs} | {', '.join(map(str, seeds))} | {len(a)} | {told} |")
    return lines
