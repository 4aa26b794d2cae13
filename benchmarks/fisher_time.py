"""Processor time of EWC's Fisher information of 256 sequences beside the training of the task, in turn in one process.

Of the adapter's factors, and of their products (`ewc` with `on: product`).

    python benchmarks/fisher_time.py [--rounds 5] [--model smollm2-135m]

The task is the fifth domain (300 rows, batches of 16, three epochs: 57 updates of `naive`). The ratio is the median over rounds,
the range is all rounds. Processor time counts what other work on the machine does not take, of all threads.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import clinc
import torch

from perdure.bridges.models import find_model
from perdure.bridges.runtime import Runtime
from perdure.data.encode import encode
from perdure.maths.importance import mean_square
from perdure.methods.registry import load_recipe
from perdure.train.learner import Learner
from perdure.train.model_view import ModelView
from perdure.train.optimizer import clip, make_optimizer
from perdure.train.task import TaskInputs

HERE = Path(__file__).parent
ROWS = 256


def train(learner: Learner) -> None:
    """Run every update of the task once."""
    optimizer = make_optimizer(learner.params.values(), learner.recipe.settings)
    learner.model.train()
    for n in range(learner.total):
        update = learner.update(n)
        update.gradients()
        clip(learner.params.values(), learner.recipe.settings)
        optimizer.step()
        optimizer.zero_grad()
        update.finish()


def main() -> None:
    """Time both in turn and print the seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="smollm2-135m")
    data = HERE.parent.parent / "shared" / "data" / "intents" / "clinc150.jsonl.gz"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "fisher_time.json")
    options = parser.parse_args()
    runtime, recipe = Runtime(find_model(options.model)), load_recipe("naive")
    fifth = clinc.part(clinc.read(options.data), clinc.DOMAINS[4], "train", 20, 0)
    rows = [encode(row, runtime.base.tokenizer, 512) for row in fifth]
    params = runtime.start_adapter(recipe.settings, 0, "fifth")
    learner = Learner(runtime.trainable(params), recipe, TaskInputs("fifth", rows))
    arms = {
        "train": lambda: train(learner),
        "fisher": lambda: mean_square(ModelView(learner).gradients("new", ROWS, "sampled")),
        "product": lambda: ModelView(learner).product_squares("new", ROWS, "sampled"),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    for run in range(options.rounds + 1):  # the first warms up
        for name, work in arms.items():
            began = time.process_time()
            work()
            if run:
                times[name].append(round(time.process_time() - began, 3))
    ratios, products = (
        [f / t for f, t in zip(times[arm], times["train"], strict=True)] for arm in ("fisher", "product")
    )
    told = {
        "ratio": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
        "product": {"ratio": statistics.median(products), "range": [min(products), max(products)]},
        "updates": learner.total,
        "rows": ROWS,
        "threads": torch.get_num_threads(),
        "seconds": times,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
