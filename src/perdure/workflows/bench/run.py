"""One run of a benchmark, in a process of its own: `python -m perdure.workflows.bench.run FOLDER`.

FOLDER holds job.json, written by `workflows.bench.bench`, and gets result.json. Each learned task is told on stdout, a line a
task. Whatever goes wrong is raised as it is: it costs this run alone, and the parent reads what it says.
"""

import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from perdure.core.errors import BadInput
from perdure.workflows.bench.suite import Source, Suite, rows_of

if TYPE_CHECKING:
    from perdure.core.recipe import Recipe
    from perdure.core.rows import Row
    from perdure.data.task import TaskData
    from perdure.ledger import Entry, Ledger
    from perdure.workflows.workspace import Workspace

Json = dict[str, Any]
Told = Callable[[str], None]  # called with the name of each task when it is learned


def run_text(suite: Suite, recipe: "Recipe", seed: int, data: Path, scratch: Path, told: Told) -> Json:
    """Learn a suite's tasks one after the other in a new workspace, exactly as `perdure learn --no-gate` does.

    Args:
        suite: Tasks and model.
        recipe: How to learn.
        seed: Chooses the rows, and is the workspace's seed.
        data: Folder of the data files.
        scratch: Empty folder for the workspace and what it reads.
        told: Called as each task is learned.

    Returns:
        What was measured, as plain JSON; docs/how-to/benchmark.md names the fields.
    """
    from perdure.data.task import load_probe, load_rows, load_task
    from perdure.workflows.workspace import Workspace

    def file_of(source: Source, name: str, seed: int) -> Path:
        file = scratch / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows_of(source, data, seed)), encoding="utf-8")
        return file

    keep: Literal["all", "needed"] = "all" if recipe.settings.data == "all" else "needed"
    ws = Workspace.init(scratch / "workspace", suite.model, dtype=suite.dtype, seed=seed, keep_rows=keep)
    general = {"general": file_of(suite.general, "general instructions", seed)} if suite.general else {}
    files = {task.name: file_of(task, task.name, seed) for task in suite.tasks}
    watched = {one.name: load_probe(one.name, file_of(one, one.name, 0), one.task) for one in suite.watch}
    if watched:
        taught = [load_task(task.name, files[task.name], overrides=task.task).train for task in suite.tasks]
        taught += [load_rows(file) for file in general.values()]
        refuse_taught(watched.values(), {row.question: row for rows in taught for row in rows})
    for probe in watched.values():  # now, so that what cannot be scored fails before anything is trained
        ws.session.score(ws.ledger.resolve("base"), probe)
    learned = []
    for task in suite.tasks:
        settings = {**general, **task.task}
        learned.append(ws.learn(task.name, files[task.name], recipe=recipe, settings=settings, gate=None))
        told(task.name)
    return {
        "matrix": ws.matrix(),
        "items": all_items(ws.ledger),
        **({"watched": {name: before_and_after(ws, task) for name, task in watched.items()}} if watched else {}),
        "tasks": [_told(ws.ledger, done) for done in learned],
        "stored": stored(ws.ledger, ws.ledger.resolve("head")),
        "machine": machine(ws.runtime.base.device, ws.ledger.config["dtype"]),
        "software": ws.ledger.notes(learned[-1]["entry"])["software"],
    }


def refuse_taught(watched: Iterable["TaskData"], taught: Mapping[str, "Row"]) -> None:
    """Raise if a watched row is trained on or rehearsed: its score would say nothing of what the model keeps by itself.

    Raises:
        BadInput: Such rows exist; the message counts them and names the first on both sides.
    """
    for probe in watched:
        if found := [row for row in probe.test if row.question in taught]:
            raise BadInput(
                f"{len(found)} of {len(probe.test)} rows of the watched {probe.name!r} are trained on or rehearsed too, the "
                f"first {found[0].source} as {taught[found[0].question].source}; take them from another file, or by `where`"
            )


def before_and_after(ws: "Workspace", task: "TaskData") -> Json:
    """Return what the base model and the last state score on each row of a watched task."""
    before, after = (ws.session.score(ws.ledger.resolve(ref), task).record for ref in ("base", "head"))
    return {"rows": [row[:16] for row in before["rows"]], "before": before["items"], "after": after["items"]}


def all_items(ledger: "Ledger") -> Json:
    """Return by task its test rows (16 digits of their hashes) and what each stage scored on them; None where not scored."""
    head = ledger.resolve("head")
    states = [ledger.state(entry) for entry in reversed(ledger.ancestors(head))]
    found = ledger.scores(states, head.tasks.values())
    items = {}
    for name, version in head.tasks.items():
        records = [found.get((state, version)) for state in states]
        rows = next(record["rows"] for record in records if record)
        items[name] = {
            "rows": [row[:16] for row in rows],
            "scores": [record and short_items(record["items"]) for record in records],
        }
    return items


def stored(ledger: "Ledger", entry: "Entry") -> dict[str, int]:
    """Return the bytes that a state needs kept: weights learned, remembered text, its columns, the methods' state."""
    from perdure.workflows.inspect.memory_views import memory_stats

    slots = set(ledger.slots(entry).values())
    memory = memory_stats(ledger, entry.id)
    rest = entry.objects - slots - {entry.columns}
    return {
        "weights": sum(map(ledger.objects.size, slots)),
        "memory_rows": memory["text_bytes"],
        "memory_columns": memory["column_bytes"],
        "method_state": sum(ledger.objects.size(name) for name in rest if name),
    }


def peak_mib() -> float:
    """Return the most memory this process ever held, in MiB.

    Linux tells it of the program alone; `getrusage` would count what the parent held when it started us.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes on macOS, KiB elsewhere


def mean_beats(heartbeats: Mapping[str, Sequence[tuple[int, dict[str, float]]]]) -> dict[str, dict[str, float]]:
    """Return what each method did over one learn: the mean of each number it told."""
    means = {}
    for method, beats in heartbeats.items():
        keys = dict.fromkeys(key for _, beat in beats for key in beat)
        means[method] = {key: fmean(beat[key] for _, beat in beats if key in beat) for key in keys}
    return means


def short_items(items: Sequence[float]) -> list[float]:
    """Return scores of test rows as a file keeps them: 1 for 1.0."""
    return [int(item) if item in (0.0, 1.0) else item for item in items]


def _told(ledger: "Ledger", done: Json) -> Json:
    """Return what is kept of one learn."""
    record = ledger.notes(done["entry"])["record"]
    kept = {
        key: done[key] for key in ("task", "train_seconds", "train_cpu_seconds", "eval_seconds", "tokens", "warnings")
    }
    return {**kept, "updates": record["updates"], "heartbeats": mean_beats(record["heartbeats"])}


def machine(device: Any, dtype: str) -> Json:
    """Return what times and memory depend on."""
    import torch

    found = {"device": str(device), "threads": torch.get_num_threads(), "dtype": dtype}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(), "gpu_peak_mib": torch.cuda.max_memory_allocated() / 2**20}
    return found | {"processor": platform.machine(), "python": platform.python_version()}


def main(folder: Path) -> None:
    """Do the job that lies in `folder`, and leave its result there."""
    from perdure.core.recipe import build_recipe
    from perdure.methods.registry import all_methods

    def told(task: str) -> None:
        sys.stdout.write(f"{task}\n")
        sys.stdout.flush()

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    suite, recipe = Suite.model_validate(job["suite"]), build_recipe(job["recipe"], all_methods())
    if suite.kind == "features":
        from perdure.workflows.bench.features import run_features as run
    else:
        run = run_text
    result = run(suite, recipe, job["seed"], Path(job["data"]), folder, told)
    result |= {"peak_mib": peak_mib(), "cpu_seconds": round(time.process_time(), 1)}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
