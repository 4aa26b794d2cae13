"""Print whether the arms of a benchmark stay flat: `python benchmarks/flat.py clinc50 [--out DIR] [--reference joint]`.

It reads the result files of `perdure bench` and runs nothing. A change is a slope times the stages of the stream. An arm is flat
where the 95% interval of its change lies within .03.
"""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path

from perdure.maths.flatness import MARGIN, Trend
from perdure.report.words import NOTHING
from perdure.workflows.bench.flat import flat_arms
from perdure.workflows.bench.jobs import results
from perdure.workflows.bench.suite_files import load_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--reference", default="joint")
    given = parser.parse_args()
    suite = load_suite(given.suite)
    runs, _ = results(suite, given.out)
    shown_at = set(suite.score_at or ())  # an arm with an adapter a task has scores at every stage
    heads = [
        "arm",
        "seeds",
        "after it was learned",
        "verdict",
        f"ACC / {given.reference}",
        "verdict",
        "train s",
        "s a token",
    ]
    print(row([*heads, "ACC by stage", f"share of {given.reference} by stage"]))
    print(row(["---"] * (len(heads) + 2)))
    for line in flat_arms(runs, given.reference):
        kept, share = line.retention, line.ratio
        cells = [line.arm, str(len(line.seeds)), shown(kept), verdict(kept), shown(share), verdict(share)]
        print(
            row(
                [
                    *cells,
                    shown(line.seconds),
                    shown(line.seconds_per_token),
                    by_stage(line.accuracy, shown_at),
                    by_stage(line.shares, shown_at),
                ]
            )
        )
    print(f"\nFlat: the interval lies within {MARGIN:.2f}. Tasks are drawn; test items are not drawn within them.")


def row(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def shown(trend: Trend | None) -> str:
    """Return a change with its interval."""
    return NOTHING if trend is None else f"{trend.change:+.3f} ({trend.low:+.3f} to {trend.high:+.3f})"


def verdict(trend: Trend | None) -> str:
    """Return what the interval of a change says."""
    return NOTHING if trend is None else trend.verdict()


def by_stage(values: Mapping[int, float], at: Collection[int]) -> str:
    """Return values by the number of tasks learned, at these numbers of tasks, or at all where none is named."""
    return ", ".join(f"{stage}: {value:.3f}" for stage, value in values.items() if not at or stage in at) or NOTHING


if __name__ == "__main__":
    main()
