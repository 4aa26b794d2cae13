"""The runs of `avalanche_digits.py` that are Avalanche's: this file runs under a Python that has avalanche-lib, and no perdure.

    VENV/bin/python benchmarks/avalanche_side.py FOLDER

FOLDER holds jobs.json, a list of {"method", "value", "seed"}, and for each seed problem-SEED.npz: what `perdure bench digits5`
learns with that seed. One JSON line a job goes to stdout: the job with "accuracy", of each task after each task.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from avalanche.benchmarks import tensors_benchmark
from avalanche.training.plugins import (
    AGEMPlugin,
    EvaluationPlugin,
    EWCPlugin,
    GEMPlugin,
    LwFPlugin,
    MASPlugin,
    MIRPlugin,
    ReplayPlugin,
    SupervisedPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.storage_policy import ClassBalancedBuffer
from avalanche.training.supervised import DER, Naive
from avalanche.training.supervised.der import ClassBalancedBufferWithLogits
from torch import nn
from torch.utils.data import DataLoader

PER_CLASS = 10  # rows kept, as the suite's memory_per_label
BATCH = 16


class Settings(SupervisedPlugin):
    """What perdure's loop does and Avalanche's does not: its batches, a rate that falls to zero in each task, clipping."""

    def __init__(self, batches, learning_rate, max_norm):
        super().__init__()
        self.batches, self.learning_rate, self.max_norm = batches, learning_rate, max_norm

    def before_training_exp(self, strategy, **kwargs):
        """Start the schedule of a task."""
        self.task = self.batches[strategy.clock.train_exp_counter]
        self.epoch, self.update = 0, 0
        self.total = sum(map(len, self.task))

    def before_training_epoch(self, strategy, **kwargs):
        """Serve the rows in perdure's batches; where rows are replayed, the batches are Avalanche's own."""
        if not any(isinstance(plugin, ReplayPlugin) for plugin in strategy.plugins):
            rows = strategy.adapted_dataset
            strategy.dataloader = DataLoader(rows, batch_sampler=self.task[self.epoch], collate_fn=rows.collate_fn)
        self.epoch += 1

    def before_update(self, strategy, **kwargs):
        """Set the rate of this update and clip, after whatever another plugin made of the gradient."""
        for group in strategy.optimizer.param_groups:
            group["lr"] = self.learning_rate * (1 - self.update / self.total)
        torch.nn.utils.clip_grad_norm_(strategy.model.parameters(), self.max_norm)
        self.update += 1


class CopyingSI(SynapticIntelligencePlugin):
    """Avalanche's SI with the one repair without which it does nothing on a CPU: the weights that it keeps are copies."""

    def before_training_exp(self, strategy, **kwargs):
        """Anchor copies of the weights."""
        super().before_training_exp(strategy, **kwargs)
        _copy(self.ewc_data[0])

    def before_training_iteration(self, strategy, **kwargs):
        """Remember a copy of the weights before the update."""
        super().before_training_iteration(strategy, **kwargs)
        _copy(self.syn_data["old_theta"])


def _copy(kept):
    for value in kept.values():
        value.data = value.data.clone()


def strategy_of(method, value, settings, common):
    """Return Avalanche's strategy for a method; `value` is its strength, or the rows it replays beside a batch."""
    if method in ("der", "der_pp"):
        beta = 0.5 if method == "der_pp" else 0.0
        made = DER(**common, plugins=[settings], alpha=value, beta=beta, batch_size_mem=BATCH)
        made.storage_policy = ClassBalancedBufferWithLogits(10 * PER_CLASS, adaptive_size=False, total_num_classes=10)
        return made
    own = {
        "naive": lambda: [],
        "ewc": lambda: [EWCPlugin(ewc_lambda=value)],
        "si": lambda: [SynapticIntelligencePlugin(si_lambda=value)],
        "si_copies": lambda: [CopyingSI(si_lambda=value)],
        "mas": lambda: [MASPlugin(lambda_reg=value)],
        "lwf": lambda: [LwFPlugin(alpha=value, temperature=2)],
        "a_gem": lambda: [AGEMPlugin(patterns_per_experience=2 * PER_CLASS, sample_size=value)],
        "gem": lambda: [GEMPlugin(patterns_per_experience=2 * PER_CLASS, memory_strength=value)],
        "mir": lambda: [_mir(value)],
        "replay": lambda: [
            ReplayPlugin(mem_size=10 * PER_CLASS, batch_size_mem=value, storage_policy=_ten_of_each_class())
        ],
    }[method]()
    return Naive(**common, plugins=[*own, settings])


def _ten_of_each_class():
    return ClassBalancedBuffer(10 * PER_CLASS, adaptive_size=False, total_num_classes=10)


def _mir(rows):
    """MIR that replays `rows` of three times as many, from the memory that the other methods have."""
    made = MIRPlugin(batch_size_mem=rows, mem_size=10 * PER_CLASS, subsample=3 * rows)
    made.storage_policy = _ten_of_each_class()
    return made


def run(job, problem):
    """Learn the tasks in order; return the accuracy on every task's test rows after each."""
    random.seed(job["seed"])
    np.random.seed(job["seed"])
    torch.manual_seed(job["seed"])
    sizes = [problem["0.weight"].shape[1], problem["0.weight"].shape[0], problem["2.weight"].shape[0]]
    model = nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[2]))
    model.load_state_dict({name: torch.tensor(problem[name]) for name in model.state_dict()})
    told = json.loads(str(problem["told"]))
    tasks = range(told["tasks"])
    test = [(torch.tensor(problem[f"test_x{t}"]), torch.tensor(problem[f"test_y{t}"])) for t in tasks]
    train = [(torch.tensor(problem[f"train_x{t}"]), torch.tensor(problem[f"train_y{t}"])) for t in tasks]
    stream = tensors_benchmark(train, test, task_labels=[0 for _ in tasks]).train_stream
    common = {
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=told["learning_rate"], weight_decay=0.0),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": BATCH,
        "train_epochs": told["epochs"],
        "evaluator": EvaluationPlugin(),
    }
    settings = Settings(told["batches"], told["learning_rate"], told["max_grad_norm"])
    strategy = strategy_of(job["method"], job["value"], settings, common)
    accuracy = []
    for experience in stream:
        strategy.train(experience, reset_optimizer_state=True)
        with torch.no_grad():
            model.eval()
            accuracy.append([round((model(x).argmax(-1) == y).double().mean().item(), 6) for x, y in test])
    return accuracy


def main(folder):
    torch.set_num_threads(1)
    problems = {}
    for job in json.loads((folder / "jobs.json").read_text()):
        if job["seed"] not in problems:
            problems[job["seed"]] = dict(np.load(folder / f"problem-{job['seed']}.npz"))
        print(json.dumps({**job, "accuracy": run(job, problems[job["seed"]])}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
