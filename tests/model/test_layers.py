"""Linear layers are known by their structure, GPT-2's transposed one too, and no Hugging Face package is imported for it."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from perdure.model.layers import is_linear, is_transposed, weight_of


class Own(nn.Linear):
    """A linear layer of a model's own."""


@pytest.mark.parametrize(
    ("layer", "linear", "transposed"),
    [
        (nn.Linear(3, 5), True, False),
        (Own(3, 5), True, False),
        (Conv1D(5, 3), True, True),
        (nn.Embedding(5, 3), False, False),
        (nn.LayerNorm(3), False, False),
    ],
)
def test_what_is_a_linear_layer_and_which_keeps_its_weight_transposed(layer, linear, transposed):
    assert (is_linear(layer), is_transposed(layer)) == (linear, transposed)


@pytest.mark.parametrize("layer", [nn.Linear(3, 5, bias=False), Conv1D(5, 3)])
def test_the_weight_of_a_linear_layer_is_out_by_in(layer):
    points = torch.randn(2, 3)
    torch.testing.assert_close(points @ weight_of(layer).T, layer(points))


def test_the_rooms_model_and_editing_load_without_hugging_face():
    code = (
        "import importlib, pkgutil, sys, perdure.model, perdure.editing\n"
        "for room in (perdure.model, perdure.editing):\n"
        "    for found in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "print([name for name in ('transformers', 'peft', 'accelerate', 'datasets') if name in sys.modules])\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"
