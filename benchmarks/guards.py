"""What the base model scores on guards, what it costs, and the score of each group (a kind of instruction, a relation).

    python benchmarks/guards.py [NAME ...] [--budget full] [--data ../shared/data] [--out FILE]

Without names, the guards that perdure makes itself. Seconds are processor time of one thread; programs are run.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch

from perdure import Workspace
from perdure.data.guard_spec import guard_file, guard_names, load_guard_spec
from perdure.workflows.guards.measure import score_guard


def main(names: list[str], budget: str, data: Path, out: Path | None) -> None:
    """Print a table of the guards, and write it to `out`."""
    torch.set_num_threads(1)
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace.init(Path(folder) / "ws", "smollm2-135m", device="cpu", guards="none")
        session = ws.session
        session.run_code = "isolated"
        for name in names:
            ws.guard_add(name, data=data)
            guard = next(guard for guard in session.ledger.guards() if guard.name == name)
            began = time.process_time()
            score = score_guard(session, guard, session.ledger.entry(guard.reference), guard.items.of(budget)).score
            seconds = time.process_time() - began
            rows = {row.hash: row for row in session.tasks.get(name, guard.version).test}
            groups = defaultdict(list)
            for key, item in zip(score.rows, score.items, strict=True):
                groups[rows[key].group or rows[key].label or ""].append(item)
            table[name] = {
                "n": score.n,
                "score": score.score,
                "low": score.low,
                "high": score.high,
                "chance": guard.chance,
                "seconds": round(seconds, 1),
                "groups": {group: [sum(items), len(items)] for group, items in sorted(groups.items())},
            }
            print(
                f"{name:18s} n {score.n:5d}  {score.score:.3f} ({score.low:.3f} to {score.high:.3f})  chance {guard.chance}"
                f"  {seconds:.1f} s",
                flush=True,
            )
            if len(groups) > 1:
                print("   ", ", ".join(f"{group} {sum(items):g}/{len(items)}" for group, items in groups.items()))
            if out:
                out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[n for n in guard_names() if load_guard_spec(guard_file(n)).made])
    parser.add_argument("--budget", default="full", choices=("learn", "quick", "standard", "full"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    main(args.names, args.budget, args.data, args.out)
