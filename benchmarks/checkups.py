"""A checkup of kept workspaces: what tasks did to every ability, with the public sets, and the processor time it takes.

    perdure bench clinc5 --recipes naive dual_replay --keep KEEP
    python benchmarks/checkups.py naive=KEEP/KEY/naive-0/workspace [NAME=WORKSPACE@REF ...] [--only commonsense code] [--out FILE]
    python benchmarks/checkups.py --learn [--out FILE]

Each workspace is copied, its guards are those that are shipped, and programs are run without a network. The base model is scored
in each copy, and timed apart. `--learn` measures what the guards of a workspace made with nothing set cost a learn: the seconds
of processor time of the base model, which the first learn pays, and of a state, which every learn pays. Results are stored after
each checkup; without a workspace the stored ones are printed.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from perdure import Workspace
from perdure.workflows.guards.measure import measure_guards

HERE = Path(__file__).parent
LEARN = "what a learn pays"


def main() -> None:
    """Check every workspace up that is not in the file yet, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspaces", nargs="*", help="NAME=WORKSPACE, or NAME=WORKSPACE@REF")
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "checkups.json")
    options = parser.parse_args()
    done = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    todo = dict(word.split("=", 1) for word in options.workspaces)
    for name in [*todo, *([LEARN] if options.learn else [])]:
        if name not in done:
            done[name] = learn_cost() if name == LEARN else checked(todo[name], options)
            options.out.write_text(json.dumps(done, indent=1) + "\n", "utf-8")
    print_table(done)


def checked(where: str, options: argparse.Namespace) -> dict[str, object]:
    """Return the checkup of a workspace at a ref."""
    path, _, ref = where.partition("@")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "workspace"
        shutil.copytree(path, copy)
        ws = Workspace.open(copy)
        ws.session.run_code = "isolated"
        given = {"budget": options.budget, "only": options.only, "data": options.data}
        began = time.process_time()
        ws.checkup("base", **given)
        base = time.process_time()
        found = ws.checkup(ref or "head", **given)
        return {
            "budget": options.budget,
            "base_seconds": base - began,
            "seconds": time.process_time() - base,
            "checkup": found.to_json(),
        }


def learn_cost() -> dict[str, object]:
    """Return the processor time of the guards of a learn with nothing set."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace.init(Path(folder) / "ws")
        rows = [
            {"text": f"please {word} my order {n}", "label": word} for n in range(40) for word in ("cancel", "refund")
        ]
        file = Path(folder) / "task.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        ws.learn("orders", file, recipe="naive", overrides={"max_steps": 4}, guards="none")
        began = time.process_time()
        measure_guards(ws.session, ws.ledger.resolve("base"))
        base = time.process_time()
        measured = measure_guards(ws.session, ws.ledger.resolve("head"))
        return {
            "base_seconds": base - began,
            "seconds": time.process_time() - base,
            "items": {name: len(one.now.items) for name, one in measured.items()},
        }


def print_table(done: dict) -> None:
    """Print a row for each workspace, with a column for each guard."""
    found = {name: one["checkup"] for name, one in done.items() if "checkup" in one}
    guards = sorted({guard for one in found.values() for guard in one["guards"]})
    print("| guard | " + " | ".join(found) + " |")
    print("|---" * (len(found) + 1) + "|")
    same = {name: one["instruction_drift"] and one["instruction_drift"]["same"] for name, one in found.items()}
    print("| drift `same` | " + " | ".join(cell(one) for one in same.values()) + " |")
    for guard in guards:
        print(f"| {guard} | " + " | ".join(cell(one["guards"].get(guard)) for one in found.values()) + " |")
    for name, one in done.items():
        items = f", {one['items']}" if "items" in one else ""
        print(
            f"{name}: {one['base_seconds']:.0f} s of processor time for the base, {one['seconds']:.0f} s for it{items}"
        )


def cell(reading: dict | None) -> str:
    """Return a reading: before, now, and the change with its interval in points."""
    if not reading:
        return "-"
    change = reading.get("change")
    if not change:
        return f"{reading['now']:.3f} ({reading['low']:.3f} to {reading['high']:.3f})"
    points = f"{100 * change['mean']:+.1f} ({100 * change['low']:+.1f} to {100 * change['high']:+.1f})"
    return f"{100 * reading['base']:.1f}: {points}, n {reading['n']}" + (", blind" if reading["blind"] else "")


if __name__ == "__main__":
    main()
