"""Edit 20 and 100 facts of CounterFact into the base model, and measure what that does to the guards.

    python benchmarks/edits_guards.py [--counts 20 100] [--method memit] [--perplexity 1] [--budget quick] [--out FILE]

Each number of facts is edited by one command into a fresh workspace of the embedded model, as `perdure edit --facts` does with
nothing set (or with the method and the bound on perplexity that are named), and measured by `perdure checkup` with the guards
that are shipped and made by perdure. The file has each checkup.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from counterfact import read

from perdure import Workspace
from perdure.editing.spec import EditSpec
from perdure.workflows.edit.gate import EditGate

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared" / "data"
GUARDS = ("drift", "instruction", "maths", "facts", "language")  # abilities


def main() -> None:
    """Measure each number of facts that is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--method", default="emmet")
    parser.add_argument("--perplexity", type=float, default=EditGate().perplexity)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "edits_guards.json")
    options = parser.parse_args()
    done = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for count in options.counts:
        if (name := called(options, count)) not in done:
            done[name] = measured(options, count)
            options.out.write_text(json.dumps(done, indent=1) + "\n", "utf-8")
    for count, result in done.items():
        print(line(count, result))


def called(options: argparse.Namespace, count: int) -> str:
    """Return the name of a run: the number of facts, and what is not as with nothing set."""
    method = [] if options.method == EditSpec().method else [options.method]
    bound = [] if options.perplexity == EditGate().perplexity else [f"perplexity {options.perplexity:+.0%}"]
    return ", ".join([str(count), *method, *bound])


def measured(options: argparse.Namespace, count: int) -> dict[str, object]:
    """Return the checkup after an edit of `count` facts, with what is said of them."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace.init(Path(folder) / "ws", guards="none")
        facts = read(options.data / "editing", count, options.seed)
        gate = EditGate(perplexity=options.perplexity)
        edited = ws.edit(facts, spec=EditSpec(method=options.method), gate=gate)
        found = ws.checkup(budget=options.budget, only=GUARDS)
        print(
            f"{count} facts: {edited.seconds:.0f} s of editing, {found.cost.seconds:.0f} s of scoring", file=sys.stderr
        )
        return {
            "facts": count,
            "applied": len(edited.applied),
            "refused": len(edited.refused),
            "reasons": dict(Counter(fact.reason for fact in edited.refused)),
            "perplexity_rise": edited.drift.rise if edited.drift else None,
            "seconds": edited.seconds,
            "checkup": found.to_json(),
        }


def line(count: str, result: dict) -> str:
    """Return a row of the table in docs/benchmarks.md."""
    checkup = result["checkup"]
    same = checkup["instruction_drift"]["same"]
    cells = [count, f"{result['applied']}", f"{same['now']:.3f} ({same['low']:.3f} to {same['high']:.3f})"]
    for name in ("instructions", "arithmetic", "facts", "language"):
        guard = checkup["guards"].get(name)
        change = guard and guard["change"]
        cells.append(
            f"{100 * change['mean']:+.1f} ({100 * change['low']:+.1f} to {100 * change['high']:+.1f}), n {guard['n']}"
            if change
            else "-"
        )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
