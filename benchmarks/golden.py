"""Write tests/methods/golden.json: what the papers' formulas give on one small problem, and what other implementations give.

    python -m venv VENV
    VENV/bin/pip install torch==2.13.0 torchvision==0.28.0 avalanche-lib==0.6.0 quadprog
    git clone https://github.com/OWNER/NAME CLONES/OWNER+NAME      # each that CLONES in golden_papers.py names, at its commit
    VENV/bin/python benchmarks/golden.py CLONES

It runs under a Python that has avalanche-lib, and imports no perdure: tests/methods/test_golden*.py hold our methods against
what is written here. (torch and torchvision must be builds of one kind, both for CPU or both for CUDA.)

"paper" is each formula written out in plain torch, "avalanche" the same quantity from Avalanche's own objects, which keep
importances and penalties in float32 whatever the model is. Methods that Avalanche has not are in golden_papers.py.
"""

import inspect
import json
import subprocess
import sys
import warnings
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import golden_papers
import numpy as np
import torch
import torch.nn.functional as F
from avalanche.benchmarks import tensors_benchmark
from avalanche.training import LearningWithoutForgetting
from avalanche.training.plugins import (
    AGEMPlugin,
    EvaluationPlugin,
    EWCPlugin,
    FeatureDistillationPlugin,
    GEMPlugin,
    MASPlugin,
    MIRPlugin,
    ReplayPlugin,
    SupervisedPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.storage_policy import ClassBalancedBuffer
from avalanche.training.supervised import DER, Naive
from avalanche_side import CopyingSI
from golden_problem import (
    NEW_X,
    NEW_Y,
    NOW,
    OLD_X,
    OLD_Y,
    RATE,
    SETTLED,
    SHAPES,
    flat,
    gradient,
    gradients_now,
    network,
)
from torch import nn
from torch.utils.data import TensorDataset

OUT = Path(__file__).parent.parent / "tests" / "methods" / "golden.json"
UPDATES, DAMPING = 6, 0.1  # of the path that SI watches, all old rows in each update
TEMPERATURE, ALPHA, BETA = 2.0, 0.5, 0.25


def strategy_at(model, **more):
    """Return as much of a strategy as a plugin looks at."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    told = {"model": model, "device": "cpu", "optimizer": optimizer, "_criterion": nn.CrossEntropyLoss()}
    clock = SimpleNamespace(train_exp_counter=1)
    return SimpleNamespace(**told, clock=clock, loss=torch.zeros((), dtype=torch.float64), **more)


def ewc():
    """Kirkpatrick et al. 2017: F_i = E_x E_{y ~ p(y|x)} (d log p(y|x) / d w_i)^2, penalty 1/2 sum F (w - w*)^2."""
    model, moved = network(SETTLED), flat(NOW) - flat(SETTLED)
    log_p = model(OLD_X).log_softmax(-1)
    squares = torch.stack([torch.stack([gradient(model, log_p[n, y]) ** 2 for y in range(4)]) for n in range(6)])
    exact = (squares * log_p.detach().exp()[:, :, None]).sum(1).mean(0)
    empirical = squares[torch.arange(6), OLD_Y].mean(0)
    paper = {
        "fisher": exact,
        "empirical": empirical,
        "penalty": 0.5 * (exact * moved**2).sum(),
        "penalty_empirical": 0.5 * (empirical * moved**2).sum(),
    }
    rows = TensorDataset(OLD_X, OLD_Y, torch.zeros(6))
    avalanche = {}
    for size in (1, 3):
        plugin = EWCPlugin(ewc_lambda=1.0)
        at = strategy_at(network(SETTLED))
        plugin.importances[0] = plugin.compute_importances(at.model, at._criterion, at.optimizer, rows, "cpu", size)
        plugin.saved_params[0] = {name: SimpleNamespace(expand=value.expand) for name, value in SETTLED.items()}
        at = strategy_at(network(NOW))
        plugin.before_backward(at)
        avalanche[f"importance_at_batch_{size}"] = flat([kept.data for kept in plugin.importances[0].values()])
        avalanche[f"penalty_at_batch_{size}"] = at.loss
    return {"paper": paper, "avalanche": avalanche}


def mas():
    """Aljundi et al. 2018: Omega_i the mean over rows of |d |F(x)|^2 / d w_i|, penalty sum Omega (w - w*)^2."""
    model, moved = network(SETTLED), flat(NOW) - flat(SETTLED)
    outputs = model(OLD_X)
    centred = outputs - outputs.mean(-1, keepdim=True)
    paper, mean_free = (
        torch.stack([gradient(model, row.square().sum()) for row in out]).abs().mean(0) for out in (outputs, centred)
    )
    avalanche = {}
    for size in (1, 3):
        plugin = MASPlugin(lambda_reg=1.0)
        rows = SimpleNamespace(dataset=TensorDataset(OLD_X, OLD_Y, torch.zeros(6)))
        at = strategy_at(network(SETTLED), experience=rows, train_mb_size=size)
        plugin.importance = plugin._get_importance(at)
        plugin.params = {name: SimpleNamespace(expand=value.expand) for name, value in SETTLED.items()}
        at = strategy_at(network(NOW))
        at.loss = torch.ones((), dtype=torch.float64)  # at a loss of 0 it raises
        plugin.before_backward(at)
        avalanche[f"importance_at_batch_{size}"] = flat([kept.data for kept in plugin.importance.values()])
        avalanche[f"penalty_at_batch_{size}"] = at.loss - 1
    avalanche["weight_of_older_tasks"] = inspect.signature(MASPlugin).parameters["alpha"].default
    paper = {"importance": paper, "centred": mean_free, "penalty_centred": (mean_free * moved**2).sum()}
    return {"paper": paper, "avalanche": avalanche}


def watched(plugin):
    """Run the path under an SI plugin; return its importances."""
    at = strategy_at(network(SETTLED))
    plugin.before_training_exp(at)
    for _ in range(UPDATES):
        plugin.before_training_iteration(at)
        at.optimizer.zero_grad()
        F.cross_entropy(at.model(OLD_X), OLD_Y).backward()
        at.optimizer.step()
        plugin.after_training_iteration(at)
    plugin.after_training_exp(at)
    return flat([kept.data for kept in plugin.ewc_data[1].values()])


def si():
    """Zenke et al. 2017, eq. 3 to 5: omega = - sum g dw, Omega = omega / (Delta^2 + xi), no less than 0."""
    at = strategy_at(network(SETTLED))
    omega = torch.zeros_like(flat(SETTLED))
    for _ in range(UPDATES):
        before = flat(at.model.parameters())
        at.optimizer.zero_grad()
        F.cross_entropy(at.model(OLD_X), OLD_Y).backward()
        grad = flat([p.grad for p in at.model.parameters()])
        at.optimizer.step()
        omega -= grad * (flat(at.model.parameters()) - before)
    moved = flat(at.model.parameters()) - flat(SETTLED)
    paper = {"path": omega, "moved": moved, "importance": omega.clamp(min=0) / (moved**2 + DAMPING)}
    avalanche = {
        "importance": watched(SynapticIntelligencePlugin(si_lambda=1.0, eps=DAMPING)),
        "importance_of_copies": watched(CopyingSI(si_lambda=1.0, eps=DAMPING)),
    }
    return {"rate": RATE, "updates": UPDATES, "damping": DAMPING, "paper": paper, "avalanche": avalanche}


def lwf():
    """Li & Hoiem 2016, eq. 2 and 3: cross-entropy with the recorded answers of the old outputs, both at temperature 2."""
    with torch.no_grad():
        before = network(SETTLED)(NEW_X)
    now = network(NOW)(NEW_X).detach().requires_grad_()

    def distilled(outputs):
        recorded = (before[:, outputs] / TEMPERATURE).softmax(-1)
        current = (now[:, outputs] / TEMPERATURE).log_softmax(-1)
        loss = -(recorded * current).sum(-1).mean()
        entropy = -(recorded * recorded.log()).sum(-1).mean()
        return loss - entropy, torch.autograd.grad(loss, now)[0].reshape(-1)

    (seen, seen_gradient), (every, every_gradient) = distilled([0, 1]), distilled([0, 1, 2, 3])
    theirs = LearningWithoutForgetting(alpha=1, temperature=TEMPERATURE)._distillation_loss(now, before, {0, 1})
    paper = {"old_outputs": seen, "old_outputs_gradient": seen_gradient}
    paper |= {"all_outputs": every, "all_outputs_gradient": every_gradient}
    avalanche = {"loss": theirs, "gradient": torch.autograd.grad(theirs, now)[0].reshape(-1)}
    return {"temperature": TEMPERATURE, "paper": paper, "avalanche": avalanche}


def a_gem():
    """Chaudhry et al. 2019, eq. 11."""
    new, halves = gradients_now()
    old = torch.stack(halves).mean(0)
    projected = new - (new @ old) / (old @ old) * old
    at = strategy_at(network(NOW))
    plugin = AGEMPlugin(patterns_per_experience=6, sample_size=4)
    plugin.buffers, plugin.buffer_dliter = [None], iter([(OLD_X, OLD_Y, None)])
    plugin.before_training_iteration(at)
    F.cross_entropy(at.model(NEW_X), NEW_Y).backward()
    plugin.after_backward(at)
    theirs = flat([p.grad for p in at.model.parameters()])
    bench = tensors_benchmark([(OLD_X, OLD_Y)], [(OLD_X, OLD_Y)], task_labels=[0])
    plugin = AGEMPlugin(patterns_per_experience=6, sample_size=4)
    plugin.update_memory(bench.train_stream[0].dataset)
    drawn = [plugin.sample_from_memory()[0] for _ in range(6)]
    places = [[int((x == OLD_X).all(-1).nonzero()) for x in batch] for batch in drawn]
    paper = {"gradient": new, "reference": old, "projected": projected}
    return {"paper": paper, "avalanche": {"projected": theirs, "rows_drawn": places}}


def gem():
    """Lopez-Paz & Ranzato 2017, eq. 11: min 1/2 |g + sum v_k r_k|^2, v_k >= margin, by trying which v_k are at their bound."""
    new, halves = gradients_now()
    refs = torch.stack(halves)
    paper, avalanche = {"references": refs.reshape(-1)}, {}
    for margin in (0.0, 0.5):
        best = min(filter(None, (_at_bound(new, refs, margin, held) for held in product((0, 1), repeat=2))))
        paper[f"projected_{margin}"] = new + torch.tensor(best[1], dtype=torch.float64) @ refs
        plugin = GEMPlugin(patterns_per_experience=6, memory_strength=margin)
        plugin.G = refs
        avalanche[f"projected_{margin}"] = plugin.solve_quadprog(new)
    return {"paper": paper, "avalanche": avalanche}


def _at_bound(new, refs, margin, held):
    """Return the objective and v where the v_k that are `held` are at the margin; None if the others fall below it."""
    v, free = np.full(2, margin), [k for k in range(2) if not held[k]]
    if free:
        rest = new + sum(margin * refs[k] for k in range(2) if held[k])
        v[free] = np.linalg.solve((refs[free] @ refs[free].T).numpy(), -(refs[free] @ rest).numpy())
    if (v < margin).any():
        return None
    return float((new + torch.tensor(v) @ refs).square().sum()), v.tolist()


class WithFeatures(nn.Module):
    """A network that remembers what its head was given, as Avalanche's feature distillation wants it."""

    def __init__(self, weights):
        super().__init__()
        self.layers = network(weights)

    def forward(self, x):
        """Return the logits."""
        self.features = self.layers[:2](x)
        return self.layers[2](self.features)


def feature_distill():
    """Hou et al. 2019, eq. 6: 1 - cos(h, h*); beside it |h - h*|^2 / |h*|^2."""
    now, before = (golden_papers.features(weights, NEW_X) for weights in (NOW, SETTLED))
    apart = (now - before).square().sum(-1) / before.square().sum(-1)
    paper = {"relative": apart.mean(), "cosine": (1 - F.cosine_similarity(now, before, dim=-1)).mean()}
    plugin = FeatureDistillationPlugin(alpha=1, mode="cosine")
    plugin.prev_model = WithFeatures(SETTLED)
    at = strategy_at(WithFeatures(NOW), mb_x=NEW_X, mb_task_id=torch.zeros(6))
    at.model(NEW_X)
    plugin.before_backward(at)
    return {"paper": paper, "avalanche": {"cosine": at.loss}}


def mir(clones):
    """Avalanche's, beside the formula and the authors' code."""
    plugin, at = MIRPlugin(batch_size_mem=3, subsample=6), strategy_at(network(NOW))
    plugin.replay_loader = iter([(OLD_X, OLD_Y, torch.zeros(6))])
    at.loss = F.cross_entropy(at.model(NEW_X), NEW_Y)
    new = at.loss.detach().clone()
    plugin.before_backward(at)
    return {**golden_papers.mir(clones), "avalanche": {"replayed": at.loss - new}}


class Told(SupervisedPlugin):
    """Remembers the loss of each update."""

    def before_training(self, strategy, **kwargs):
        """Begin anew."""
        self.losses = []

    def before_backward(self, strategy, **kwargs):
        """Remember what is about to be differentiated."""
        self.losses.append(strategy.loss.item())


def loss_on_both(make):
    """Return a strategy's loss at the weights of now, on the new rows and all old ones, stored at the settled weights."""
    told, model = Told(), network(SETTLED)
    bench = tensors_benchmark([(OLD_X, OLD_Y), (NEW_X, NEW_Y)], [(OLD_X, OLD_Y)], task_labels=[0, 0])
    common = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.0), "train_mb_size": 6}
    strategy = make(told, {**common, "evaluator": EvaluationPlugin()})
    strategy.train(bench.train_stream[0])
    model.load_state_dict(NOW)
    strategy.train(bench.train_stream[1])
    return told.losses[-1]


def replayed():
    """Buzzega et al. 2020, eq. 5 and 6; Chaudhry et al. 2019b, algorithm 1: one batch of new and replayed rows."""
    with torch.no_grad():
        stored, old, new = network(SETTLED)(OLD_X), network(NOW)(OLD_X), network(NOW)(NEW_X)
    new_loss, old_loss = F.cross_entropy(new, NEW_Y), F.cross_entropy(old, OLD_Y)
    paper = {
        "new": new_loss,
        "old": old_loss,
        "replay": F.cross_entropy(torch.cat([new, old]), torch.cat([NEW_Y, OLD_Y])),
        "der_term": ALPHA * (stored - old).square().sum(-1).mean(),  # |z - h|^2, as printed
        "der_term_in_code": ALPHA * (stored - old).square().mean(),  # a mean over the outputs, as in the authors' code
    }

    def der(beta):
        return lambda told, common: DER(**common, plugins=[told], mem_size=6, batch_size_mem=6, alpha=ALPHA, beta=beta)

    def naive(told, common):
        kept = ReplayPlugin(mem_size=6, batch_size_mem=6, storage_policy=ClassBalancedBuffer(6))
        return Naive(**common, plugins=[kept, told])

    avalanche = {
        "replay": loss_on_both(naive),
        "der": loss_on_both(der(0.0)),
        "der_pp": loss_on_both(der(BETA)),
        "der_beta_unless_given": inspect.signature(DER).parameters["beta"].default,
    }
    return {"alpha": ALPHA, "beta": BETA, "paper": paper, "avalanche": avalanche}


def plain(value):
    """Return tensors as lists of numbers with 12 digits."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, torch.Tensor | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    clones = Path(sys.argv[1])
    for name, commit in golden_papers.CLONES.items():
        folder = clones / name.replace("/", "+")
        found = subprocess.run(
            ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        if found != commit:
            sys.exit(f"{folder} is at {found or 'no commit'}, not at {commit}; git checkout {commit} there")
    warnings.simplefilter("ignore")
    parts = {part.__name__: part() for part in (ewc, mas, si, lwf, a_gem, gem, replayed, feature_distill)}
    parts |= {part.__name__: part(clones) for part in (mir, *golden_papers.PAPERS)}
    found = {
        "made_by": "benchmarks/golden.py",
        "versions": {name: version(name) for name in ("avalanche-lib", "torch")} | golden_papers.CLONES,
        "problem": {
            "shapes": SHAPES,
            "settled": flat(SETTLED),
            "now": flat(NOW),
            "path": [flat(weights) for weights in golden_papers.PATH],
            **{"old_x": OLD_X, "old_y": OLD_Y, "new_x": NEW_X, "new_y": NEW_Y},
        },
        **parts,
    }
    lines = [f" {json.dumps(key)}: {json.dumps(plain(value))}" for key, value in found.items()]
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{OUT}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
