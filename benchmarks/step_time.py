"""Seconds an update of the plain script, of `naive` and of `dual_replay`, interleaved in one process.

    python benchmarks/step_time.py [--rounds 57] [--model smollm2-135m]

Each round runs one update of each on the same task (the fifth domain, 300 rows, batches of 16, three epochs), so that a change
in the machine's speed meets all alike. Replay draws from 2 rows a label of the four domains before. Ratios are of the sums
over all rounds; the interval is a bootstrap over rounds.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import clinc
import numpy as np
import torch

from perdure.bridges.models import find_model
from perdure.bridges.runtime import Runtime
from perdure.data.encode import encode
from perdure.ledger import row_key
from perdure.memory.pool import Pool
from perdure.methods.registry import load_recipe
from perdure.train.learner import Learner
from perdure.train.optimizer import clip, make_optimizer, make_schedule
from perdure.train.task import TaskInputs

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared"


def plain_update(folder: Path, script: Path, data: Path):
    """Return a function that runs one update of the plain script, taken from its own source up to its stream."""
    sys.argv = [str(script), "--model", str(folder), "--data", str(data)]
    source = script.read_text(encoding="utf-8").split("\nstream = ")[0]
    made: dict = {}
    exec(compile(source, str(script), "exec"), made)
    rows = made["train"][clinc.DOMAINS[4]]
    batch = made["a"].batch
    made["model"].train()

    def run(update: int) -> None:
        per_epoch = -(-len(rows) // batch)
        if update % per_epoch == 0:
            made["random"].shuffle(rows)
        at = update % per_epoch * batch
        made["loss_of"](rows[at : at + batch]).backward()
        torch.nn.utils.clip_grad_norm_(made["trainable"], 1.0)
        made["optimizer"].step()
        made["optimizer"].zero_grad()

    return run


def recipe_update(folder: Path, name: str, records: list):
    """Return a function that runs one update of a recipe on the fifth domain, with memory of the four before."""
    runtime = Runtime(folder)
    tokenizer, recipe = runtime.base.tokenizer, load_recipe(name)
    params = runtime.start_adapter(recipe.settings, 0, "fifth")
    kept = [row for domain in clinc.DOMAINS[:4] for row in clinc.part(records, domain, "train", 2, 0)]
    tokens = [encode(row, tokenizer, 512) for row in kept]
    keys = [row_key(row) for row in kept]
    fifth = [encode(row, tokenizer, 512) for row in clinc.part(records, clinc.DOMAINS[4], "train", 20, 0)]
    columns = {"teacher": dict(zip(keys, runtime.top_k(tokens, 32), strict=True))}
    pool = Pool(keys, tokens, [row.label for row in kept], [row.task for row in kept], columns)
    learner = Learner(runtime.trainable(params), recipe, TaskInputs("fifth", fifth, pools={"replay": pool}))
    optimizer = make_optimizer(params.values(), recipe.settings)
    schedule = make_schedule(optimizer, recipe.settings, learner.total)
    runtime.model.train()

    def run(n: int) -> None:
        update = learner.update(n % learner.total)
        update.gradients()
        clip(params.values(), recipe.settings)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        update.finish()

    return run


def main() -> None:
    """Time the updates and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=57)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "intents" / "clinc150.jsonl.gz")
    parser.add_argument("--plain", type=Path, default=SHARED / "bench" / "plain_stream.py")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "step_time.json")
    options = parser.parse_args()
    folder, records = find_model(options.model), clinc.read(options.data)
    arms = {"plain": plain_update(folder, options.plain, options.data)}
    arms |= {name: recipe_update(folder, name, records) for name in ("naive", "replay", "dual_replay")}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for update in range(options.rounds + 2):
        for name, run in arms.items():
            began = time.perf_counter()
            run(update)
            if update >= 2:  # two rounds to warm up
                times[name].append(time.perf_counter() - began)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, options.rounds, (2000, options.rounds))
    told = {name: {"median_s": float(np.median(t)), "total_s": float(np.sum(t))} for name, t in times.items()}
    for top, bottom in (("naive", "plain"), ("dual_replay", "naive"), ("replay", "naive"), ("dual_replay", "plain")):
        a, b = np.array(times[top]), np.array(times[bottom])
        low, high = np.percentile(a[picks].sum(1) / b[picks].sum(1), [2.5, 97.5])
        told[f"{top}/{bottom}"] = {"ratio": float(a.sum() / b.sum()), "low": float(low), "high": float(high)}
    told["threads"] = torch.get_num_threads()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**told, "times": times}, indent=1), encoding="utf-8")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
