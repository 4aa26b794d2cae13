"""Avalanche's EWC, SI, MAS, LwF, A-GEM, GEM, replay, MIR, DER and DER++ beside ours on `digits5`, both tuned alike.

    python -m venv VENV
    VENV/bin/pip install torch==2.13.0 torchvision==0.28.0 avalanche-lib==0.6.0 quadprog
    python benchmarks/avalanche_digits.py --python VENV/bin/python [--table]

Avalanche has its own Python, as its requirements are not ours (torch and torchvision must be builds of one kind, both for CPU or
both for CUDA). Both learn the same rows in the same order with the same network, first weights, batches (where rows are replayed,
Avalanche makes its own), AdamW, a rate that falls to zero in each task, and clipping; both keep 10 rows a class, chosen at
random.

Each side has the same number of values to choose from, by the mean final ACC on seeds that are not reported. Runs go to
results/avalanche.json, ours with the chosen values to results/digits5/ as `make bench-digits5` leaves them. A finished
run is kept. `--table` prints the table from those files and runs nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from perdure.core.recipe import build_recipe
from perdure.methods.registry import all_methods
from perdure.model.grouping import plan_epoch
from perdure.workflows.bench import features as bench_features
from perdure.workflows.bench.bench import bench
from perdure.workflows.bench.jobs import read_arm, results
from perdure.workflows.bench.records import FinishedRun
from perdure.workflows.bench.runner import BenchPlace
from perdure.workflows.bench.suite_files import load_suite

HERE = Path(__file__).parent
RESULTS = HERE / "results"
KEPT = RESULTS / "avalanche.json"
SUITE = load_suite("digits5")
TUNED_ON, REPORTED = (100, 101, 102), (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Method:
    """A method of both: how ours is written, its values and Avalanche's, and its name there if it differs."""

    name: str
    arm: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    there: str | None = None


ROWS = {8: 1 / 3, 16: 0.5, 32: 2 / 3, 64: 0.8}  # replayed beside 16 new ones, and their share of the mix
METHODS = [
    Method("ewc", "ewc:methods.ewc.strength={}", (0.1, 1, 10, 100, 1e3, 1e4), (1, 10, 100, 1e3, 1e4, 1e5)),
    Method("si", "si:methods.si.strength={}", (0.1, 1, 10, 100, 1e3, 1e4), (1, 10, 100, 1e3, 1e4, 1e5), "si_copies"),
    Method("mas", "mas:methods.mas.strength={}", (0.1, 1, 10, 100, 1e3, 1e4), (1, 10, 100, 1e3, 1e4, 1e5)),
    Method("lwf", "lwf:methods.lwf.strength={}", (0.125, 0.25, 0.5, 1, 2, 4), (0.5, 1, 2, 4, 8, 16)),
    Method("a_gem", "a_gem:methods.a_gem.mix={}", tuple(ROWS.values()), tuple(ROWS)),
    Method("gem", "gem:methods.gem.mix=0.8,methods.gem.margin={}", *2 * ((0.0, 0.25, 0.5, 1.0, 2.0, 4.0),)),
    Method("replay", "replay:methods.replay.mix={}", tuple(ROWS.values()), tuple(ROWS)),
    Method("mir", "mir:methods.mir.mix={}", tuple(ROWS.values()), tuple(ROWS)),
    Method("der", "der:methods.der.mix=0.5,methods.der.strength={}", *2 * ((0.03, 0.1, 0.3, 1, 3, 10),)),
    Method("der_pp", "der_pp:methods.der_pp.mix=0.5,methods.der_pp.strength={}", *2 * ((0.03, 0.1, 0.3, 1, 3, 10),)),
]


def problem(seed: int) -> dict:
    """Return what the suite learns with a seed: first weights, rows, and the batches of each epoch of each task."""
    settings = build_recipe(read_arm("naive", SUITE.settings).recipe, all_methods()).settings
    parts = bench_features._parts(SUITE, Path(), seed)
    arrays = {
        name: value.detach().numpy()
        for name, value in bench_features._mlp(SUITE.model, 64, 10, seed).named_parameters()
    }
    for number, part in enumerate(parts):
        for which, samples in (("train", part.train), ("test", part.test)):
            arrays[f"{which}_x{number}"] = np.stack([sample.row.features.numpy() for sample in samples])
            arrays[f"{which}_y{number}"] = np.array([sample.row.label for sample in samples])
    size, epochs = settings.per_device_train_batch_size, range(settings.num_train_epochs)
    batches = [[plan_epoch([1] * len(part.train), size, seed, part.name, epoch) for epoch in epochs] for part in parts]
    told = {"tasks": len(parts), "batches": batches, "epochs": len(epochs)}
    told |= {"learning_rate": settings.learning_rate, "max_grad_norm": settings.max_grad_norm}
    return arrays | {"told": json.dumps(told)}


def run_theirs(jobs: list[dict], python: Path, known: dict) -> None:
    """Run Avalanche's jobs that are not known, and add them."""
    missing = [job for job in jobs if key(job) not in known]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for seed in {job["seed"] for job in missing}:
            np.savez(folder / f"problem-{seed}.npz", **problem(seed))
        (folder / "jobs.json").write_text(json.dumps(missing), encoding="utf-8")
        command = [str(python), "-W", "ignore", str(HERE / "avalanche_side.py"), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                if line.startswith("{"):
                    keep(known, json.loads(line))
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}; what it finished is kept")


def run_ours(job: dict, known: dict) -> None:
    """Run one of our tuning jobs in this process, if it is not known, and add it."""
    if key(job) in known:
        return
    recipe = build_recipe(read_arm(job["method"].format(job["value"]), SUITE.settings).recipe, all_methods())
    done = bench_features.run_features(SUITE, recipe, job["seed"], Path(), Path(), lambda task: None)
    keep(known, {**job, "accuracy": [[round(cell, 6) for cell in row] for row in done.matrix.score[1:]]})


def key(job: dict) -> str:
    return json.dumps([job[part] for part in ("side", "method", "value", "seed")])


def keep(known: dict, run: dict) -> None:
    """Add a run, and write all of them."""
    known[key(run)] = run
    print(
        f"{run['side']} {run['method'].format(run['value'])} {run['value']} seed {run['seed']}: {acc(run):.3f}",
        file=sys.stderr,
    )
    lines = ",\n".join(json.dumps(known[name]) for name in sorted(known))
    KEPT.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def acc(run: dict) -> float:
    return float(np.mean(run["accuracy"][-1]))


def jobs_of(side: str, method: str, values: tuple, seeds: tuple) -> list[dict]:
    return [{"side": side, "method": method, "value": value, "seed": seed} for value in values for seed in seeds]


def chosen(side: str, method: str, values: tuple, known: dict) -> float:
    """Return the value with the highest mean ACC on the seeds for tuning."""
    means = [np.mean([acc(known[key(job)]) for job in jobs_of(side, method, (value,), TUNED_ON)]) for value in values]
    return values[int(np.argmax(means))]


def arms(known: dict) -> list[str]:
    """Return our arms: every method as it is and with its chosen value, between no method and all rows at once."""
    tuned = [f"{m.name}_tuned={m.arm.format(chosen('ours', m.arm, m.ours, known))}" for m in METHODS]
    return ["naive", *(m.name for m in METHODS), *tuned, "joint"]


def interval(values: list[float], sign: str = "") -> str:
    """Return the mean over seeds and its 95% interval by Student's t: the test rows are the same in every seed."""
    mean = np.mean(values)
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return "{:{sign}.3f} ({:{sign}.3f} to {:{sign}.3f})".format(mean, mean - half, mean + half, sign=sign)


def table(known: dict) -> str:
    """Return the Markdown table from the finished runs."""
    runs, _ = results(SUITE, RESULTS)
    scores = {(run.arm, run.seed): run.matrix.score for run in runs if isinstance(run, FinishedRun)}
    ours = {name: float(np.mean([round(cell, 6) for cell in score[-1]])) for name, score in scores.items()}

    def mine(arm: str) -> list[float]:
        return [ours[arm, seed] for seed in REPORTED]

    def theirs(method: str, value: float | None) -> list[float]:
        return [acc(known[key(job)]) for job in jobs_of("avalanche", method, (value,), REPORTED)]

    def line(name: str, default: str, value: str, a: list[float], their_value: str, b: list[float]) -> str:
        gap = "0 (equal)" if a == b else interval([x - y for x, y in zip(a, b, strict=True)], "+")
        return f"| {name} | {default} | {value} | {interval(a)} | {their_value} | {interval(b)} | {gap} |"

    lines = [
        "| method | ours, default | ours, value | ours, tuned | Avalanche, value | Avalanche, tuned | ours minus theirs |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    lines.append(line("naive", interval(mine("naive")), "-", mine("naive"), "-", theirs("naive", None)))
    for m in METHODS:
        there = m.there or m.name
        a, b = chosen("ours", m.arm, m.ours, known), chosen("avalanche", there, m.theirs, known)
        values = (mine(f"{m.name}_tuned"), theirs(there, b))
        lines.append(line(f"`{m.name}`", interval(mine(m.name)), f"{a:.3g}", values[0], f"{b:.3g}", values[1]))
    shipped = interval(theirs("si", 1e3))
    lines += [f"| SI as Avalanche ships it | - | - | - | 1e+03 | {shipped} | - |"]
    return "\n".join([*lines, f"| joint (all rows at once) | {interval(mine('joint'))} | - | - | - | - | - |"])


def main() -> None:
    """Tune both, run both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="the Python that has avalanche-lib")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    known = {key(run): run for run in json.loads(KEPT.read_text(encoding="utf-8"))} if KEPT.exists() else {}
    if not options.table:
        if options.python is None:
            parser.error("--python names the Python that has avalanche-lib")
        theirs = [job for m in METHODS for job in jobs_of("avalanche", m.there or m.name, m.theirs, TUNED_ON)]
        run_theirs(theirs, options.python, known)
        best = [
            job
            for m in METHODS
            for there in [m.there or m.name]
            for job in jobs_of("avalanche", there, (chosen("avalanche", there, m.theirs, known),), REPORTED)
        ]
        plain = jobs_of("avalanche", "naive", (None,), REPORTED) + jobs_of("avalanche", "si", (1e3,), REPORTED)
        run_theirs(plain + best, options.python, known)
        for m in METHODS:
            for job in jobs_of("ours", m.arm, m.ours, TUNED_ON):
                run_ours(job, known)
        ours = [read_arm(text, SUITE.settings) for text in arms(known)]
        done = bench(SUITE, ours, REPORTED, BenchPlace(Path(), RESULTS))
        if done.failed:
            sys.exit(f"failed: {done.failed}")
    print(table(known))


if __name__ == "__main__":
    main()
