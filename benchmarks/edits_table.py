"""The tables of the editing benchmark, from its result files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perdure.maths.statistics import mean_interval, paired_difference

OLD = "†"  # behind what was measured with statistics that were summed in bfloat16
METHODS = ("emmet", "rome", "memit", "alphaedit", "lora")
SHOWN = ("efficacy", "generation", "paraphrase", "neighbourhood", "chat")


def tables(folder: Path) -> str:
    """Return the Markdown tables of all parts that have results."""
    found: dict[str, dict[str, list[dict]]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(run["part"], {}).setdefault(run["method"], []).append(run)
    made = [
        make({m: found[part][m] for m in METHODS if m in found[part]}) for part, make in MAKERS.items() if part in found
    ]
    old = any(run.get("rounded") for own in found.values() for runs in own.values() for run in runs)
    told = f"{OLD} measured before the keys' statistics were summed in float32 and float64, with those of bfloat16."
    return "\n\n".join([*made, told] if old else made)


def _name(method: str, runs: Sequence[dict]) -> str:
    """Return the name of a method, marked where its statistics were rounded."""
    return f"{method} {OLD}" if any(run.get("rounded") for run in runs) else method


def _single(runs: dict[str, list[dict]]) -> str:
    lines = [
        "| method | n | efficacy, first try | efficacy | said freely | paraphrase | neighbourhood, change | chat |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, own in runs.items():
        before, after = _joined(own, "before"), _joined(own, "after")
        name = _name("emmet = rome" if method == "emmet" else method, own)
        tried = [item for run in own for item in run.get("first", run["after"])]
        once = _told(mean_interval(_values(tried, "efficacy")))
        lines.append(f"| {name} | {len(after)} | {once} | {_row(before, after)} |")
    plain = _joined(next(iter(runs.values())), "before")
    lines.append(f"| unedited | {len(plain)} | - | {_row(None, plain)} |")
    return "\n".join(lines)


def _sets(runs: dict[str, list[dict]]) -> str:
    lines = [
        "| facts | method | n asked | efficacy | said freely | paraphrase | neighbourhood, change | chat | perplexity | KL "
        "| update / weight |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size in sorted({run["size"] for own in runs.values() for run in own}):
        for method, own in runs.items():
            mine = [run for run in own if run["size"] == size]
            if not mine:
                continue
            before, after = _joined(mine, "before"), _joined(mine, "after")
            rise = np.mean([run["drift"]["perplexity"] / run["drift"]["perplexity_before"] - 1 for run in mine])
            kl, norm = (
                np.mean([run["drift"]["kl"] for run in mine]),
                np.mean([max(run["norms"].values()) for run in mine]),
            )
            lines.append(
                f"| {size} | {_name(method, mine)} | {len(after)} | {_row(before, after)} | {rise:+.1%} | {kl:.3f} | {norm:.3f} |"
            )
    return "\n".join(lines)


def _undo(runs: dict[str, list[dict]]) -> str:
    lines = [
        "| method | dropped | update at the key, relative (largest) | target no longer preferred | next token as unedited "
        "| KL from unedited (median, largest) | others lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, own in runs.items():
        drops = [drop for run in own for drop in run["drops"] if "left" in drop]
        changed = [drop for drop in drops if not drop["preferred_before_the_edit"]]
        gone = _told(mean_interval([not drop["still_preferred"] for drop in changed]))
        same = _told(mean_interval([drop["same_token"] for drop in drops]))
        kl = [drop["kl"] for drop in drops]
        lost = sum(len(drop["others_lost"]) for drop in drops)
        lines.append(
            f"| {_name(method, own)} | {len(drops)} | {max(drop['left'] for drop in drops):.1e} | {gone} of {len(changed)} "
            f"| {same} | {np.median(kl):.1e}, {max(kl):.1e} | {lost} |"
        )
    return "\n".join(lines)


def _seconds(runs: dict[str, list[dict]]) -> str:
    lines = [
        "| method | statistics, once | one edit, median (first, 20th) | 100 in one command, each | threads |",
        "|---|---|---|---|---|",
    ]
    for method, own in runs.items():
        for run in own:
            each = run["one_by_one"]
            lines.append(
                f"| {_name(method, [run])} | {run['statistics']:.0f} s | {np.median(each):.2f} s ({each[0]:.2f}, {each[-1]:.2f}) "
                f"| {run['hundred'] / 100:.2f} s | {run['threads']} |"
            )
    return "\n".join(lines)


def _learned(runs: dict[str, list[dict]]) -> str:
    """Return edits of a state that learned two tasks, by the statistics they were written with; one run a method."""
    lines = [
        "| method | statistics | n | efficacy, first try | minus own, paired | paraphrase | minus own, paired "
        "| neighbourhood, change | minus own, paired | keys reach, cosine with own |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, (run,) in runs.items():
        for name, after in run["single"].items():
            cells = [_told(mean_interval(_values(after, what))) for what in ("efficacy", "paraphrase")]
            cells.append(_points(_values(after, "neighbourhood"), _values(run["before"], "neighbourhood")))
            own = run["single"]["own"]
            apart = [
                "-" if name == "own" else _points(_values(after, what), _values(own, what))
                for what in ("efficacy", "paraphrase", "neighbourhood")
            ]
            pairs = " | ".join(cell for pair in zip(cells, apart, strict=True) for cell in pair)
            near = "1" if name == "own" else f"{run['unlike'][name]['reach_cosine']:.3f}"
            lines.append(f"| {method} | {name} | {len(after)} | {pairs} | {near} |")
    tasks = list(next(iter(runs.values()))[0]["tasks_before"])
    heads = " | ".join(f"{name.replace('_', ' ')}, change" for name in tasks)
    lines += [
        "",
        f"| facts | method | statistics | efficacy | paraphrase | neighbourhood, change | perplexity | {heads} |",
        f"|---|---|---|---|---|---|---|{'---|' * len(tasks)}",
    ]
    for method, (run,) in runs.items():
        for made in run["sets"]:
            before, after = made["before"], made["after"]
            told = [_told(mean_interval(_values(after, what))) for what in ("efficacy", "paraphrase")]
            told.append(_points(_values(after, "neighbourhood"), _values(before, "neighbourhood")))
            told.append(f"{made['drift']['perplexity'] / made['drift']['perplexity_before'] - 1:+.1%}")
            told += [_points(made["tasks"][name], run["tasks_before"][name]) for name in tasks]
            lines.append(f"| {made['size']} | {method} | {made['moments']} | {' | '.join(told)} |")
    return "\n".join(lines)


def official(theirs: dict, ours: dict) -> str:
    """Return the table of the official code and ours on the same facts, and of the paired differences."""
    n = theirs["n"]
    lines = [
        "| | n | efficacy | said freely | paraphrase | neighbourhood, change | chat |",
        "|---|---|---|---|---|---|---|",
        f"| official ROME | {n} | {_row(theirs['before'], theirs['after'])} |",
    ]
    first, last = ours["first"][:n], ours["after"][:n]
    lines.append(f"| `emmet`, first try | {n} | {_row(ours['before'][:n], first)} |")
    for name, own in {"first try": first, "after all tries": last}.items():
        cells = [_points(_values(own, what), _values(theirs["after"], what)) for what in SHOWN]
        lines.append(f"| {name} minus official, paired | {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _points(values: list[float], others: list[float]) -> str:
    """Return the mean paired difference in points."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * x for x in paired_difference(values, others)))


MAKERS = {"single": _single, "sets": _sets, "learned": _learned, "undo": _undo, "seconds": _seconds}


def _joined(runs: Sequence[dict], key: str) -> list[dict]:
    return [item for run in runs for item in run[key]]


def _row(before: list[dict] | None, after: list[dict]) -> str:
    """Return the cells of all measures; the neighbourhood as a difference where there is a before."""
    cells = []
    for name in SHOWN:
        values = _values(after, name)
        if name == "neighbourhood" and before is not None:
            cells.append(_points(values, _values(before, name)))
        else:
            cells.append(_told(mean_interval(values)) if values else "-")
    return " | ".join(cells)


def _values(items: Sequence[dict], name: str) -> list[float]:
    """Return one value a fact, of those that have it."""
    found = [item[name] for item in items if item[name] is not None and item[name] != []]
    return [float(np.mean(value)) for value in found]


def _told(interval: tuple[float, float, float]) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * x for x in interval))
