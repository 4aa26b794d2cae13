"""What `predict --route single|soft|vote` scores on the test rows of kept workspaces, where no request names its task.

    perdure bench SUITE --recipes isolated --keep DIR
    python benchmarks/routes.py DIR/KEY/isolated-0/workspace [...] [--out FILE]

Each workspace is copied. "named" is the stored score of the rows where each request names its task, "single" the one where a
router names it. "soft" and "vote" differ from "single" only in rows that several tasks answer, those where two tasks or more have
a probability of at least 0.05. These are given to `Workspace.predict` as texts, without the template and the name of their task;
their answer is right where it is the answer of the row, white space apart. Differences are to "single", paired by row, with 95%
intervals.

Results are stored after each workspace. Without a workspace the stored results are printed.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from perdure import Workspace
from perdure.maths.statistics import mean_interval, paired_difference
from perdure.workflows.predict.views import LEAST
from perdure.workflows.routed_scores import score_routed
from perdure.workflows.routing import routed_rows

HERE = Path(__file__).parent
ENSEMBLES = ("soft", "vote")


class Row(NamedTuple):
    """A test row.

    Args:
        text: The text that a user would write.
        answer: The right answer.
        named: Its score where the request names its task.
        single: Its score where the likeliest task answers.
        several: Whether several tasks are likely.
    """

    text: str
    answer: str
    named: float
    single: float
    several: bool


def main() -> None:
    """Score what is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspaces", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "routes.json")
    options = parser.parse_args()
    done = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for folder in options.workspaces:
        with tempfile.TemporaryDirectory() as place:
            ws = Workspace.open(shutil.copytree(folder, Path(place) / "ws"))
            key = ws.ledger.resolve("head").id[:12]
            if key not in done:
                done[key] = scored(ws, rows_of(ws))
                options.out.write_text(json.dumps(done) + "\n", "utf-8")
    print("| route | ACC | minus single | rows better, worse | n |")
    print("|---|---|---|---|---|")
    for found in done.values():
        for route, items in found["items"].items():
            print(line(route, items, found["items"]["single"]))
        seconds = ", ".join(f"{route} {value:.1f} s" for route, value in found["cpu_seconds"].items())
        print(f"\n{found['several']} rows have several likely tasks; processor time of answering these: {seconds}")


def rows_of(ws: Workspace) -> list[Row]:
    """Return the test rows of all tasks, tasks in the order of their names."""
    session, head = ws.session, ws.ledger.resolve("head")
    found = []
    for name in sorted(head.tasks):
        task = session.task(name, head)
        own, single = session.score(head, task).score, score_routed(session, head, task)
        if not [row.hash for row in task.test] == list(own.rows) == list(single.rows):
            raise SystemExit(
                f"the score of {name} is of a part of its test rows; score all with 'perdure eval --routed'"
            )
        begin, _, end = (task.spec.template or "{text}").partition("{text}")
        for n, (row, routing) in enumerate(zip(task.test, routed_rows(session, head, task), strict=True)):
            likely = [task for task, value in routing.posterior.items() if value >= LEAST]
            text = row.prompt.removeprefix(begin).removesuffix(end)
            several = routing.task is not None and len(likely) > 1
            found.append(Row(text, row.answer.strip(), own.items[n], single.items[n], several))
    return found


def scored(ws: Workspace, rows: Sequence[Row]) -> dict:
    """Return the score of each row under each route, how many rows several tasks answer, and the seconds."""
    places = [n for n, row in enumerate(rows) if row.several]
    items = {"named": [row.named for row in rows], "single": [row.single for row in rows]}
    seconds = {}
    for route in ENSEMBLES:
        began = time.process_time()
        found = ws.predict([rows[n].text for n in places], route=route)
        seconds[route] = time.process_time() - began
        items[route] = list(items["single"])
        for n, answer in zip(places, found, strict=True):
            items[route][n] = float(answer.answer.strip() == rows[n].answer)
    return {"several": len(places), "items": items, "cpu_seconds": seconds}


def line(route: str, items: Sequence[float], single: Sequence[float]) -> str:
    """Return a line of the table."""
    acc = "{:.3f} ({:.3f} to {:.3f})".format(*mean_interval(items))
    if route == "single":
        return f"| {route} | {acc} | | | {len(items)} |"
    change = "{:+.3f} ({:+.3f} to {:+.3f})".format(*paired_difference(items, single))
    pairs = list(zip(items, single, strict=True))
    return f"| {route} | {acc} | {change} | {sum(a > b for a, b in pairs)}, {sum(a < b for a, b in pairs)} | {len(items)} |"


if __name__ == "__main__":
    main()
