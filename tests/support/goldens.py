"""The small problem of `benchmarks/golden.py` and the numbers it wrote, for the tests that hold our methods against them."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from perdure.core.step import Slice

GOLDEN = json.loads((Path(__file__).parents[1] / "methods" / "golden.json").read_text(encoding="utf-8"))
SHAPES = {name: tuple(shape) for name, shape in GOLDEN["problem"]["shapes"].items()}
SIXTH = torch.full((6,), 1 / 6, dtype=torch.float64)  # weight of each of six rows in their mean


def golden(part, *where):
    """A number or a vector of golden.json, in float64."""
    found = GOLDEN[part]
    for name in where:
        found = found[name]
    return torch.tensor(found, dtype=torch.float64)


def given(name):
    return torch.from_numpy(np.array(GOLDEN["problem"][name]))


def by_name(vector):
    """A vector over all weights as tensors by parameter name."""
    parts = vector.split([torch.Size(shape).numel() for shape in SHAPES.values()])
    return {name: part.reshape(shape) for (name, shape), part in zip(SHAPES.items(), parts, strict=True)}


def weights(at):
    """Weights by name: "settled" or "now"."""
    return by_name(given(at))


def path():
    """The weights after each of six updates, away from those of now."""
    return [by_name(after) for after in given("path")]


def flat(tensors):
    return torch.cat([tensors[name].detach().double().reshape(-1) for name in SHAPES])


def network(at, dtype=torch.float64):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    model.load_state_dict(at if isinstance(at, dict) else weights(at))
    return model.to(dtype)


def logits(at, which):
    with torch.no_grad():
        return network(at)(given(f"{which}_x"))


def rows_of(which, at="now", **more):
    """The old or the new rows at some weights, as a method sees them: each is one token, its place its row."""
    with torch.no_grad():
        hidden = network(at)[:2](given(f"{which}_x"))
    answers = logits(at, which).requires_grad_()
    return Slice(answers, given(f"{which}_y"), SIXTH, **{"hidden": hidden, "row": torch.arange(6)} | more)


def per_row(of_labels):
    """Gradients (rows, weights) of each old row's log-likelihood at the settled weights, in float64."""
    model = network("settled")
    log_p = model(given("old_x")).log_softmax(-1)[torch.arange(6), of_labels]
    rows = [torch.autograd.grad(one, list(model.parameters()), retain_graph=True) for one in log_p]
    return torch.stack([torch.cat([value.reshape(-1) for value in grads]) for grads in rows])
