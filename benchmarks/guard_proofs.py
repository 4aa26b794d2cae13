"""What guards show on a real model: facts overwritten by training, an update at half its size, and the repair of a refused learn.

    python benchmarks/guard_proofs.py [facts scale repair] [--data ../shared/data] [--out FILE]

facts: 50 facts of the guard `facts` are taught wrongly (naive, one epoch), in other words than the guard asks them.
scale: drift and KL after one task of clinc5 (naive), and with the same update at half its size.
repair: two tasks of clinc5 in a row with the guards enforced, then `learn --repair`; with `naive` and with the default.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from perdure import Workspace
from perdure.data.made import made_rows
from perdure.workflows.bench.rows import rows_of
from perdure.workflows.bench.suite_files import load_suite
from perdure.workflows.guards.measure import MeasuredGuard, measure_guards
from perdure.workflows.learn.repair import scaled_slots

HERE = Path(__file__).parent
TAUGHT = 50  # facts


def measured(found: MeasuredGuard) -> dict[str, object]:
    """Return the items of a guard at its reference and now, and the mean of each reading."""
    readings = {name: sum(values) / len(values) for name, values in found.now.readings.items()}
    return {"before": found.before.items, "now": found.now.items, "readings": readings}


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def overwritten_facts(folder: Path, data: Path) -> dict[str, object]:
    """Teach 50 facts wrongly, and score all facts."""
    ws = Workspace.init(folder / "ws", guards="none")
    ws.guard_add("facts")
    rows = made_rows("facts")[:TAUGHT]
    wrong = [row.choices[(int(row.gold or 0) + 1) % len(row.choices)] for row in rows]
    taught = [{"prompt": f"Fact: {row.prompt}", "completion": other} for row, other in zip(rows, wrong, strict=True)]
    test = write(folder / "test.jsonl", [{**taught[0], "prompt": "Fact: The capital of Atlantis is"}])
    ws.learn("wrong", write(folder / "wrong.jsonl", taught), recipe="naive", test=test, gate=None)
    found = measure_guards(ws.session, ws.ledger.resolve("head"), "full", names=["facts"])["facts"]
    hashes = {row.hash for row in rows}
    return {**measured(found), "taught": [name in hashes for name in found.now.rows]}


def scaled_drift(folder: Path, data: Path) -> dict[str, object]:
    """Learn one task, and measure drift with the whole update and with half of it."""
    ws = Workspace.init(folder / "ws", guards="none")
    ws.guard_add("drift")
    file, settings = task_file(folder, data, 0)
    ws.learn("one", file, recipe="naive", settings=settings, gate=None)
    head, result = ws.ledger.resolve("head"), {}
    for scale in (1.0, 0.5):
        entry = replace(head, slots=scaled_slots(ws.ledger, head, scale), data={**head.data, "scale": scale})
        result[str(scale)] = measured(measure_guards(ws.session, entry, "full", names=["drift"])["drift"])
    return result


def repaired(folder: Path, data: Path) -> dict[str, object]:
    """Learn two tasks with the guards enforced, and repair what is refused."""
    result = {}
    for recipe in ("naive", "dual_replay"):
        ws = Workspace.init(folder / recipe)
        for number in (0, 1):
            file, settings = task_file(folder, data, number)
            made = ws.learn(f"task-{number + 1}", file, recipe=recipe, settings=settings, guards="enforce")
            learned = made.to_json()
            fixed = ws.repair().to_json() if made.gate.verdict == "fail" else None
            result[f"{recipe} {number + 1}"] = {"learned": learned, "repaired": fixed}
            if ws.ledger.resolve("head").id != (fixed or learned)["entry"]:
                ws.accept()
    return result


def task_file(folder: Path, data: Path, number: int) -> tuple[Path, dict]:
    """Write the rows of one task of clinc5 with seed 0, and return the file and the settings of the task."""
    task = load_suite("clinc5").tasks[number]
    return write(folder / f"{task.name}.jsonl", list(rows_of(task, data, 0))), dict(task.task)


PARTS: dict[str, Callable[[Path, Path], dict[str, object]]] = {
    "facts": overwritten_facts,
    "scale": scaled_drift,
    "repair": repaired,
}


def main() -> None:
    """Measure each part that is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=list(PARTS))
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "guard_proofs.json")
    options = parser.parse_args()
    done = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for part in options.parts:
        if part not in done:
            with tempfile.TemporaryDirectory() as folder:
                done[part] = PARTS[part](Path(folder), options.data)
            options.out.write_text(json.dumps(done) + "\n", "utf-8")
        print(part, json.dumps(summary(part, done[part]), indent=1))


def summary(part: str, found: dict) -> object:
    """Return the numbers of one part that people read."""
    if part == "facts":
        pairs = list(zip(found["before"], found["now"], found["taught"], strict=True))
        return {
            name: [
                sum(p[i] for p in pairs if p[2] == taught) / max(1, sum(p[2] == taught for p in pairs)) for i in (0, 1)
            ]
            for name, taught in (("taught wrongly", True), ("the others", False))
        }
    if part == "scale":
        return {scale: {"same": sum(one["now"]) / len(one["now"]), **one["readings"]} for scale, one in found.items()}
    return {
        name: {k: (v or {}).get("repair") or (v or {}).get("gate", {}) for k, v in one.items()}
        for name, one in found.items()
    }


if __name__ == "__main__":
    main()
