"""What the adapters of many tasks lose when they are merged into one of bounded rank: error of the update, and accuracy.

    perdure bench SUITE --recipes incremental per_task --keep DIR
    python benchmarks/merge.py DIR/KEY/incremental-0/workspace [...] [--ranks 8 16 32 64] [--hows svd ties knots average]
                               [--at head] [--distill 0 1 --suite SUITE --seed 0 --data ../shared/data] [--out FILE]

Each workspace is copied, merged with its gate switched off, and rolled back, once for each rank, way and number of epochs of
distillation. The error is that of the truncation, in the Frobenius norm over all modules. ACC is the mean score over the tasks:
before, of each task as requests that name it go (a sum, or its own adapter); after, through the merged adapter alone. The change
is over all test rows together, with its 95% interval, paired. A distillation trains on the train rows of the suite, drawn again
by its seed; without --suite on those that the workspace stores, and where it stores none it is noted as refused.

Results are stored after each merge, and a run that is stopped goes on. Without a workspace the stored results are printed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path
from statistics import fmean

from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.maths.statistics import paired_difference
from perdure.workflows.bench.rows import rows_of
from perdure.workflows.bench.suite_files import load_suite

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared" / "data"


def main() -> None:
    """Measure every merge that is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspaces", nargs="*", type=Path)
    parser.add_argument("--ranks", nargs="+", type=int, default=[8, 16, 32, 64])
    parser.add_argument("--hows", nargs="+", default=["svd", "ties", "knots", "average"])
    parser.add_argument("--distill", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--suite", help="Suite that the workspaces learned, for the rows to distill on")
    parser.add_argument("--seed", type=int, default=0, help="Seed of that run")
    parser.add_argument(
        "--at", default="head", help="Earlier entry to merge at, as head~35 for the first 15 of 50 tasks"
    )
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "merge.json")
    options = parser.parse_args()
    done = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for folder in options.workspaces:
        with tempfile.TemporaryDirectory() as place:
            ws = Workspace.open(shutil.copytree(folder, Path(place) / "ws"))
            ws.rollback(options.at)
            files = suite_files(options.suite, options.data, options.seed, Path(place)) if options.suite else {}
            for rank, how, epochs in product(options.ranks, options.hows, options.distill):
                if epochs and how != "svd":
                    continue  # distillation starts from the truncated sum
                key = f"{ws.ledger.resolve('head').id[:12]} {how} {rank} {epochs}"
                if key not in done:
                    done[key] = {"recipe": recipe_of(ws), **measured(ws, rank, how, epochs, files)}
                    options.out.write_text(json.dumps(done, indent=1) + "\n", "utf-8")
                    print(line(done[key]), file=sys.stderr)
    print("| tasks | learned by | merged by | rank | error of the update | ACC before | ACC after | change (95%) | n |")
    print("|---|---|---|---|---|---|---|---|---|")
    for result in done.values():
        print(line(result))


def recipe_of(ws: Workspace) -> str:
    """Return the name of the recipe of the last learn."""
    head = ws.ledger.resolve("head")
    learned = next(entry for entry in ws.ledger.ancestors(head) if entry.kind == "learn")
    return str((learned.recipe or {}).get("name"))


def suite_files(suite: str, data: Path, seed: int, folder: Path) -> dict[str, Path]:
    """Write the rows of each task of a suite as its run drew them, and return the files."""
    files = {}
    for task in load_suite(suite).tasks:
        files[task.name] = folder / f"{task.name}.jsonl"
        files[task.name].write_text("".join(json.dumps(row) + "\n" for row in rows_of(task, data, seed)), "utf-8")
    return files


def measured(ws: Workspace, rank: int, how: str, epochs: int, files: dict[str, Path]) -> dict[str, object]:
    """Return what one merge did, and roll it back."""
    head = ws.ledger.resolve("head")
    rows = {task: files[task] for task in head.tasks if task in files} if epochs else None
    about: dict[str, object] = {"how": how, "rank": rank, "distill_epochs": epochs}
    try:
        made = ws.merge(rank, how=how, distill_epochs=epochs, gate=None, rows=rows)
    except BadInput as error:
        return {**about, "refused": str(error)}
    entry, before, after = ws.ledger.entry(made.entry), [], []
    for task, version in head.tasks.items():
        then, now = (
            ws.ledger.score(ws.ledger.seen(head, task), version),
            ws.ledger.score(ws.ledger.seen(entry, None), version),
        )
        if then and now:
            items = dict(zip(then.rows, then.items, strict=True))
            before += [items[row] for row in now.rows]
            after += now.items
    change = paired_difference(after, before)
    ws.rollback(head.id)
    return {
        **about,
        "tasks": len(made.tasks),
        "error": made.error,
        "before": fmean(score.score for score in made.before.values()),
        "after": fmean(score.score for score in made.scores.values()),
        "change": list(change),
        "n": len(after),
        "rows": made.rows,
        "seconds": made.seconds,
        "scores": {task: score.score for task, score in made.scores.items()},
    }


def line(result: dict) -> str:
    """Return a row of the table."""
    how = result["how"] + (f", {result['distill_epochs']} epochs of distillation" if result["distill_epochs"] else "")
    if "refused" in result:
        cells = ["-", result["recipe"], how, result["rank"], f"refused: {result['refused'].partition(':')[0]}", *"----"]
        return "| " + " | ".join(map(str, cells)) + " |"
    value, low, high = result["change"]
    cells = [result["tasks"], result["recipe"], how, result["rank"], f"{result['error']:.2f}"]
    cells += [
        f"{result['before']:.3f}",
        f"{result['after']:.3f}",
        f"{value:+.3f} ({low:+.3f} to {high:+.3f})",
        result["n"],
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
