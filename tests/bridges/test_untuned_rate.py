"""A model above a billion weights with the default rate: a notice from its configuration alone."""

import json

import pytest

from perdure.bridges.sizes import untuned_rate
from perdure.core.settings import Settings

WIDTH = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16, "vocab_size": 32_000}


@pytest.mark.parametrize(
    ("layers", "settings", "words"),
    [
        (2, {}, None),
        (16, {}, "this one has 1.2 billion: try learning_rate 2e-4"),
        (16, {"train": "full"}, "try learning_rate 1e-5"),
        (16, {"learning_rate": 2e-4}, None),
        (250, {}, "try learning_rate 1e-4"),
    ],
)
def test_a_large_model_with_the_default_rate_is_noticed_without_its_weights(tmp_path, layers, settings, words):
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": layers, **WIDTH}
    (tmp_path / "config.json").write_text(json.dumps(config))
    notice = untuned_rate(tmp_path, Settings(**settings))
    assert (words in notice) if words else notice is None
