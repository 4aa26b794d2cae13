"""The small problem that `golden.py` and `golden_papers.py` put to the papers' formulas and to other implementations.

A network of 36 weights in float64, six rows of an old task with classes 0 and 1, and six of a new one with classes 2 and 3 at
nearly the same places, so that the two conflict.
"""

import ast
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RATE = 0.1

rng = np.random.default_rng(0)
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (4, 4), "2.bias": (4,)}
SETTLED = {name: torch.tensor(rng.normal(0, 0.7, shape).round(3)) for name, shape in SHAPES.items()}
NOW = {name: value + torch.tensor(rng.normal(0, 0.2, value.shape).round(3)) for name, value in SETTLED.items()}
OLD_X = torch.tensor(rng.normal(0, 1, (6, 3)).round(2))
NEW_X = OLD_X + torch.tensor(rng.normal(0, 0.1, (6, 3)).round(2))
OLD_Y, NEW_Y = torch.tensor([0, 1, 1, 0, 0, 1]), torch.tensor([2, 3, 3, 2, 2, 3])
PATH = [NOW]  # weights after each of six updates, away from NOW
for _ in range(6):
    PATH.append(
        {name: value + torch.tensor(rng.normal(0, 0.1, value.shape).round(3)) for name, value in PATH[-1].items()}
    )
del PATH[0]


def network(weights):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    model.load_state_dict(weights)
    return model


def flat(tensors):
    """Return tensors by name, or in the order of the parameters, as one vector."""
    values = tensors.values() if isinstance(tensors, dict) else tensors
    return torch.cat([value.detach().double().reshape(-1) for value in values])


def gradient(model, loss):
    return flat(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True))


def gradients_now():
    """Return the gradient of the new rows, and those of each half of the old ones, at the weights of now."""
    model = network(NOW)
    new = gradient(model, F.cross_entropy(model(NEW_X), NEW_Y))
    return new, [gradient(model, F.cross_entropy(model(OLD_X[i : i + 3]), OLD_Y[i : i + 3])) for i in (0, 3)]


def published(clones: Path, repository: str, path: str, *names: str, **given):
    """Return functions or classes of one file of a clone by their names, without running the rest of the file.

    Args:
        clones: Folder that has the clone as "owner+name".
        repository: "owner/name".
        path: The file in it.
        *names: What is wanted of it.
        **given: What these need of the file's imports, besides torch, F and np.
    """
    file = clones / repository.replace("/", "+") / path
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    known = {"torch": torch, "F": F, "np": np, **given}
    exec(compile(tree, str(file), "exec"), known)
    return [known[name] for name in names]
