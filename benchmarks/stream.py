"""Recipes on a stream of tasks, beside the plainest script there is: same model, rows, epochs, batch, rate and order.

    python benchmarks/stream.py [--seeds 0 1 2] [--arms plain-naive plain-replay naive dual_replay joint] [--table]

Each arm and seed runs in a process of its own and leaves one JSON file in benchmarks/results/stream/; a finished one is not
run again. `--table` prints the table from those files. Arms: "plain-*" runs the plain script; a recipe's name runs that recipe
through a workspace, exactly as `perdure learn` does; "name:key=value,key=value" is that recipe with settings changed.
The last state is scored on 30 test rows a label by one scorer for all arms; earlier stages on 8.
"""

import argparse
import json
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import clinc
import yaml

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "stream"
SHARED = HERE.parent.parent / "shared"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["plain-naive", "plain-replay", "naive", "dual_replay", "joint"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "intents" / "clinc150.jsonl.gz")
    parser.add_argument("--plain", type=Path, default=SHARED / "bench" / "plain_stream.py")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options, options.one[0], int(options.one[1]))
        return
    for path in (options.data, options.plain):
        if not options.table and not path.exists():
            sys.exit(f"{path} is not there; give it with --data / --plain")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for arm in options.arms:
            if options.table or result_path(arm, seed).exists():
                continue
            command = [sys.executable, __file__, "--one", arm, str(seed), "--tasks", str(options.tasks)]
            command += ["--model", options.model, "--data", str(options.data), "--plain", str(options.plain)]
            began = time.time()
            subprocess.run(command, check=True)
            print(f"{arm} seed {seed}: {time.time() - began:.0f} s", file=sys.stderr)
    from table import table

    print(table(RESULTS, options.arms, options.seeds))


def result_path(arm: str, seed: int) -> Path:
    """Where the result of an arm and a seed is kept."""
    return RESULTS / f"{arm.replace(':', '+').replace('=', '-').replace(',', '+')}-{seed}.json"


def run_one(options: argparse.Namespace, arm: str, seed: int) -> None:
    """Run one arm with one seed in this process and write its result."""
    from perdure.bridges.models import find_model

    folder = find_model(options.model)
    records = clinc.read(options.data)
    run = plain if arm.startswith("plain-") else recipe
    with tempfile.TemporaryDirectory() as scratch:
        result = run(options, arm, seed, folder, records, Path(scratch))
    result |= {"arm": arm, "seed": seed, "tasks": clinc.DOMAINS[: options.tasks]}
    result_path(arm, seed).write_text(json.dumps(result), encoding="utf-8")


def recipe(options, arm, seed, folder, records, scratch) -> dict:
    """Learn the stream through a workspace."""
    from perdure import Workspace
    from perdure.workflows.scoring import measure

    name, _, changes = arm.partition(":")
    overrides = {k: yaml.safe_load(v) for k, v in (pair.split("=") for pair in changes.split(",") if pair)}
    ws = Workspace.init(scratch / "ws", str(folder), seed=seed, keep_rows="all" if name == "joint" else "needed")
    domains = clinc.DOMAINS[: options.tasks]
    seconds, tokens, learned, evals = [], [], {}, []
    for i, domain in enumerate(domains):
        data = scratch / f"{domain}.jsonl"
        clinc.write(data, clinc.part(records, domain, "train", 20, seed), clinc.part(records, domain, "test", 8, seed))
        if name == "joint" and i < len(domains) - 1:
            overrides_now = {**overrides, "num_train_epochs": 1, "lora_r": 8}  # only the last stage of joint is scored
            done = ws.learn(domain, data, recipe=name, overrides=overrides_now, gate=None)
        else:
            done = ws.learn(domain, data, recipe=name, overrides=overrides, gate=None)
        seconds.append(done.train_seconds)
        evals.append(done.eval_seconds)
        tokens.append(done.tokens)
        head = ws.ledger.resolve("head")
        learned[domain] = ws.session.score(head, ws.session.task(domain, head)).score.items
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    final = {
        d: measure(ws.runtime, clinc.task(d, clinc.part(records, d, "test", 30, seed))).score.items for d in domains
    }
    return {
        "seconds": seconds,
        "eval_seconds": evals,
        "tokens": tokens,
        **({} if name == "joint" else {"learned": learned}),  # its earlier stages are shortened
        "final": final,
        "peak_mib": peak,
        "matrix": ws.matrix().to_json(),
    }


def plain(options, arm, seed, folder, records, scratch) -> dict:
    """Run the plain script in this process, then score its last model with the scorer that all arms share."""
    sys.argv = [str(options.plain), "--model", str(folder), "--method", arm.removeprefix("plain-"), "--seed", str(seed)]
    sys.argv += ["--tasks", str(options.tasks), "--data", str(options.data), "--json", str(scratch / "plain.json")]
    sys.argv += ["--test-per-label", "2"]  # its own scores are not used: all arms share one scorer and 30 rows a label
    made = runpy.run_path(str(options.plain))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    made["model"].save_pretrained(scratch / "adapter")
    result = json.loads((scratch / "plain.json").read_text(encoding="utf-8"))
    return {
        "seconds": made["seconds"],
        "final": score_adapter(folder, scratch / "adapter", records, clinc.DOMAINS[: options.tasks], seed),
        "peak_mib": peak,
        "matrix": result["matrix"],
    }


def score_adapter(folder: Path, adapter: Path, records, domains, seed: int) -> dict[str, list[float]]:
    """Score a PEFT adapter on 30 test rows a label of each domain, with the code that scores every state."""
    import torch

    from perdure.bridges.export import as_served
    from perdure.bridges.runtime import Runtime
    from perdure.workflows.scoring import measure

    runtime = Runtime(folder)
    runtime.load({"skill": as_served(adapter, runtime, torch.float32)})
    return {d: measure(runtime, clinc.task(d, clinc.part(records, d, "test", 30, seed))).score.items for d in domains}


if __name__ == "__main__":
    main()
