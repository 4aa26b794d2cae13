"""Peak memory and time of a learn with each way to save either: packing, gradient checkpointing, and a base in 4 or 8 bits.

    python benchmarks/memory.py --data ../shared/data [--rows 96] [--out FILE]

Two tasks are learned on the embedded model with the default recipe: short requests (CLINC150), then instructions of many lengths
(Dolly), so that short rows are replayed among long ones. Reported is the second learn: the seconds of its training, and the most
memory that the process had, less what it had before it loaded the model. Each arm is a process of its own; all in one run.
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ARMS = {
    "default": {},
    "packing off": {"packing": False},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "nf4": {"quantization": "nf4"},
    "int8": {"quantization": "int8"},
    "nf4, gradient checkpointing": {"quantization": "nf4", "gradient_checkpointing": True},
}
RESULT = Path(__file__).parent / "results" / "memory.json"


def rows_of(source: Path, target: Path, count: int, most: int) -> Path:
    """Write the first rows of a stored data set as prompts and completions, a fifth of them for testing."""
    lines = []
    with gzip.open(source, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prompt, answer = str(row.get("prompt") or row["text"]), str(row.get("response") or row.get("label"))
            if len(prompt) + len(answer) < most and len(lines) < count:
                split = "test" if len(lines) % 5 == 4 else "train"
                lines.append(json.dumps({"prompt": prompt, "completion": answer, "split": split}))
    target.write_text("\n".join(lines), encoding="utf-8")
    return target


def arm(name: str, data: Path, count: int) -> dict[str, float]:
    """Return seconds of training (the clock's and the processor's) and MiB at the peak of the second learn."""
    from perdure import Workspace

    settings = dict(ARMS[name])
    quantization = settings.pop("quantization", None)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        short = rows_of(data / "intents" / "clinc150.jsonl.gz", root / "short.jsonl", count, 300)
        long = rows_of(data / "instruct" / "dolly_hhrlhf_small.jsonl.gz", root / "long.jsonl", count, 2500)
        before = peak()
        ws = Workspace.init(root / "ws", quantization=quantization, guards="none")
        fixed = {"num_train_epochs": 1, "max_length": 512}
        ws.learn("short", short, overrides={**fixed, **settings}, gate=None, allow_leaks=True)
        done = ws.learn("long", long, overrides={**fixed, **settings}, gate=None, allow_leaks=True)
        record = done if isinstance(done, dict) else done.to_json()
        return {
            "train_seconds": record["train_seconds"],
            "train_cpu_seconds": record["train_cpu_seconds"],
            "peak_mib": peak() - before,
            "weights_mib": ws.runtime.base.model.get_memory_footprint() / 2**20,
            "tokens": record["tokens"],
        }


def peak() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--arm", choices=ARMS, help="run this arm alone, and print it")
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(arm(given.arm, given.data, given.rows)))
        return
    results: dict[str, dict[str, float]] = {}
    for name in ARMS:
        command = [sys.executable, __file__, "--data", str(given.data), "--rows", str(given.rows), "--arm", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
        first = results["default"]
        ratios = {key: results[name][key] / first[key] for key in ("train_seconds", "train_cpu_seconds", "peak_mib")}
        print(f"{name:30} {results[name]}, of the default: {ratios}", flush=True)
        given.out.write_text(json.dumps({"rows": given.rows, "arms": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
