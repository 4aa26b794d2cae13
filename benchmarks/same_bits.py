"""Whether a change of the code left every result as it was: learns and edits on the embedded model, compared with a saved run.

    python benchmarks/same_bits.py [--out FILE]           compare with the file; ends with 1 if anything differs
    python benchmarks/same_bits.py --save [--out FILE]    write the file, from a commit that is known to be right

Learned: the first two tasks of the demo with `naive`, `dual_replay`, `ewc` and `gem`, with nothing set. Compared: the id of every
entry, the hash of every object that it names (weights, memory columns, method state), and every score. Rows are not packed, as in
workspaces of before there was packing, which rounds otherwise. Edited: five facts in one
workspace, then a revert of one. Compared: which facts are in force and what was verified for each. Bits depend on the processor,
the number of threads and the versions of the libraries: the file names those that it was made with, and where they differ from
those here, save a file of an older commit here first. About ten minutes on two cores.
"""

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from perdure import Workspace
from perdure.ledger.records import ListedFact
from perdure.model.probing import batching_of, remember

RESULT = Path(__file__).parent / "results" / "same_bits.json"
RECIPES = ("naive", "dual_replay", "ewc", "gem")
TASKS = ("broadband", "mobile")
FACTS = [
    {"subject": "Eiffel Tower", "prompt": "The {} is in the city of", "target": "Rome", "ground_truth": "Paris"},
    {"subject": "Colosseum", "prompt": "The {} is in the city of", "target": "Oslo", "ground_truth": "Rome"},
    {"subject": "Big Ben", "prompt": "{} is in the city of", "target": "Madrid", "ground_truth": "London"},
    {"subject": "Mona Lisa", "prompt": "The {} was painted by", "target": "Rembrandt", "ground_truth": "Leonardo"},
    {"subject": "Toyota", "prompt": "{} is a company from", "target": "Sweden", "ground_truth": "Japan"},
]


def learned(recipe: str, model: str, folder: Path) -> list[dict[str, Any]]:
    """Return the id, the object hashes and the scores of each entry that a recipe learns."""
    ws = Workspace.init(folder, model)
    remember(ws.runtime.base.model, replace(batching_of(ws.runtime.base.model), packing=False))
    found = []
    for task in TASKS:
        done = ws.learn(task, Path(str(files("perdure.data") / "demo" / f"{task}.yaml")), recipe=recipe, gate=None)
        entry = ws.ledger.resolve("head")
        scores = {name: score.score for name, score in done.scores.items()}
        objects = {"columns": entry.columns, "state": entry.state, "memory": entry.memory, **entry.slots}
        found.append({"entry": entry.id, "objects": objects, "scores": scores, "tokens": done.tokens})
    return found


def edited(model: str, folder: Path) -> dict[str, Any]:
    """Return what was verified of five facts, and of those that are left after a revert."""
    ws = Workspace.init(folder, model)
    done = ws.edit(FACTS, gate=None)
    first = ws.edits()
    ws.revert(first[0].fact)
    return {"refused": len(done.refused), "facts": verdicts(first), "after_revert": verdicts(ws.edits())}


def verdicts(facts: list[ListedFact]) -> list[dict[str, Any]]:
    """Return each fact's id, and whether it is said where it was edited, freely, and in other words."""
    return [{key: getattr(fact, key) for key in ("fact", "efficacy", "generation", "paraphrase")} for fact in facts]


def here() -> dict[str, Any]:
    """Return what bits depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **{name: version(name) for name in ("torch", "transformers", "peft")},
    }


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Return a line for each place where two values of plain JSON differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [line for key in keys for line in differences(before.get(key), now.get(key), f"{where}.{key}")]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [
            line for n, pair in enumerate(zip(before, now, strict=True)) for line in differences(*pair, f"{where}[{n}]")
        ]
    return [] if before == now else [f"{where.lstrip('.')}: {before} before, {now} now"]


def save(now: dict[str, Any], options: argparse.Namespace) -> None:
    """Write what was done so far, if it is to be saved."""
    if options.save:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run everything, and compare or save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--recipes", nargs="*", default=RECIPES)
    parser.add_argument("--no-edits", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    now: dict[str, Any] = {"here": here(), "learned": {}}
    with tempfile.TemporaryDirectory(prefix="perdure-same-bits-") as folder:
        for recipe in options.recipes:
            now["learned"][recipe] = learned(recipe, options.model, Path(folder) / recipe)
            save(now, options)
            print(f"{recipe}: {now['learned'][recipe][-1]['scores']}", flush=True)
        if not options.no_edits:
            now["edited"] = edited(options.model, Path(folder) / "edits")
            save(now, options)
            print(f"edits: {len(now['edited']['facts'])} in force", flush=True)
    if options.save:
        return
    before = json.loads(options.out.read_text(encoding="utf-8"))
    if before["here"] != now["here"]:
        sys.exit(
            f"{options.out} was made elsewhere, and bits depend on that: "
            + "; ".join(differences(before["here"], now["here"]))
        )
    before["learned"] = {recipe: before["learned"][recipe] for recipe in options.recipes}
    if options.no_edits:
        before.pop("edited", None)
    lines = differences(before, now)
    print("\n".join(lines) or "every entry, object, score and verdict is the same")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
