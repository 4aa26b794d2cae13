"""What `learn --dry-run` estimates beside what the learn takes: updates, tokens, peak memory and seconds.

    python benchmarks/estimate.py [--model smollm2-135m] [--only N ...] [--out FILE]

Ten configurations; with --only, the others keep the results that FILE has. Each dry run and each learn is a process of its own,
whose peak of resident memory the system counts. Two tasks are learned before, so that methods that draw from memory have rows.
Times are of this machine while it does what else it does.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from perdure.bridges.models import find_model

RESULT = Path(__file__).parent / "results" / "estimate.json"

WORDS = (
    "the",
    "parcel",
    "is",
    "late",
    "and",
    "nobody",
    "answers",
    "when",
    "I",
    "call",
    "about",
    "my",
    "order",
    "please",
    "help",
)
CONFIGURATIONS: list[tuple[str, int, int, list[str]]] = [  # name, words of a prompt, words of an answer, settings
    ("naive, short rows", 12, 1, ["recipe=naive"]),
    ("dual_replay, short rows", 12, 1, []),
    ("naive, long rows, batch 4", 300, 1, ["recipe=naive", "per_device_train_batch_size=4"]),
    ("dual_replay, long answers", 60, 60, ["per_device_train_batch_size=8"]),
    ("dual_replay, batch 4 x 4", 60, 8, ["per_device_train_batch_size=4", "gradient_accumulation_steps=4"]),
    (
        "naive, every weight trained",
        12,
        1,
        ["recipe=naive", "train=full", "start=base", "per_device_train_batch_size=4"],
    ),
    ("naive, rank 64", 30, 1, ["recipe=naive", "lora_r=64", "start=base"]),
    ("naive, loop, best epoch", 30, 1, ["recipe=naive", "host=loop", "keep=best"]),
    ("ewc", 30, 1, ["recipe=ewc"]),
    ("der_pp, batch 32", 30, 4, ["recipe=der_pp", "per_device_train_batch_size=32"]),
]


def main() -> None:
    """Measure, and print a line a configuration and a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = find_model(chosen.model)
        os.environ["PERDURE_CACHE"] = str(folder / "cache")  # nothing was measured before
        perdure("init", folder / "ws", "--model", model)
        for task in ("one", "two"):
            perdure("-w", folder / "ws", "learn", task, data(folder, task, 12, 1, 16), "--set", "num_train_epochs=1")
        known = {} if chosen.only is None else json.loads(chosen.out.read_text(encoding="utf-8"))["configurations"]
        for number in chosen.only or range(len(CONFIGURATIONS)):
            name, *rest = CONFIGURATIONS[number]
            known[name] = compared(folder, number, name, *rest)
            written = {"model": chosen.model, "configurations": known}
            chosen.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        found = list(known.values())
        errors = sorted(abs(one["peak_mib"]["estimated"] / one["peak_mib"]["measured"] - 1) for one in found)
        print(f"error of the memory: {errors[len(errors) // 2]:.0%} in the median, {errors[-1]:.0%} at most")


def compared(folder: Path, number: int, name: str, words: int, answer: int, settings: list[str]) -> dict[str, Any]:
    """Run one configuration both ways and print it."""
    file = data(folder, f"task{number}", words, answer, 40)
    options = [
        word for one in settings for word in (("--recipe", one[7:]) if one.startswith("recipe=") else ("--set", one))
    ]
    options += ["--set", "num_train_epochs=2"]
    call = ["-w", folder / "ws", "learn", f"task{number}", file, *options, "--no-gate", "--json"]
    dry, _ = perdure(*call, "--dry-run")
    learned, peak = perdure(*call)
    shown, _ = perdure("-w", folder / "ws", "show", "--json")
    perdure("-w", folder / "ws", "rollback", "head~1")
    measured = {
        "updates": (dry["updates"], shown["record"]["updates"]),
        "tokens": (dry["estimate"]["tokens"], learned["tokens"]),
        "peak_mib": (dry["estimate"]["peak_mib"], peak),
        "seconds": (dry["estimate"]["seconds"], round(learned["train_seconds"] + learned["eval_seconds"], 1)),
    }
    print(f"{name:32}", ", ".join(f"{key} {ours} / {real}" for key, (ours, real) in measured.items()), flush=True)
    pairs = {key: {"estimated": ours, "measured": real} for key, (ours, real) in measured.items()}
    return {"settings": settings, **pairs}


def data(folder: Path, task: str, words: int, answer: int, rows: int) -> Path:
    """Write rows whose prompts have from a half to one and a half times as many words."""
    draw = random.Random(task)
    made = [
        {
            "prompt": f"{task} {n}: {' '.join(draw.choices(WORDS, k=draw.randint(words // 2, words * 3 // 2)))}",
            "completion": " ".join(draw.choices(WORDS, k=answer)),
        }
        for n in range(rows)
    ]
    path = folder / f"{task}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def perdure(*words: object) -> tuple[Any, int]:
    """Run perdure in a process; return what it printed, and the peak of its resident memory in MiB."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([sys.executable, "-m", "perdure.cli.main", *map(str, words)], stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        err.seek(0)
        if status:
            sys.exit(err.read().decode())
        printed = out.read()
    return json.loads(printed) if printed[:1] == b"{" else None, usage.ru_maxrss >> 10


if __name__ == "__main__":
    main()
