"""Write the general rows of `general: made` twice, and print whether they are equal, what was left out, and how long it took.

python benchmarks/general_made.py [--model smollm2-135m] [--seed 0] [--rows 100] [--out FILE]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from perdure import Workspace
from perdure.workflows.learn.general_made import Writing, write_general


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "general_made.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace.init(Path(folder) / "ws", given.model, guards="none")
        runs, processor = [], []
        for _ in range(2):
            began = time.process_time()
            runs.append(write_general(ws.runtime, given.seed, Writing(rows=given.rows)))
            processor.append(round(time.process_time() - began, 1))
    first, second = runs
    counts = {name: value for name, value in first.to_json().items() if name != "rows"}
    different = len({row.instruction for row in first.rows})
    equal = first.rows == second.rows
    record = {**counts, "kept": len(first.rows), "texts": different, "equal": equal, "processor_seconds": processor}
    print(json.dumps(record))
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for row in first.rows[:10]:
        print(json.dumps(row.to_json(), ensure_ascii=False))


if __name__ == "__main__":
    main()
