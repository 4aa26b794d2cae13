"""Any decoder is understood by its structure, and what cannot be edited is refused in words that say why."""

import pytest
import torch
import transformers as hf
from torch import nn

from perdure.core.errors import BadInput
from perdure.model.layers import weight_of
from perdure.model.layout import find_layout

SMALL = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
GQA = {**LLAMA, "num_key_value_heads": 2}


def model(kind, **config):
    return getattr(hf, f"{kind}ForCausalLM")(getattr(hf, f"{kind}Config")(**{**SMALL, **config})).eval()


def gpt2():
    return hf.GPT2LMHeadModel(hf.GPT2Config(**SMALL, n_embd=16, n_layer=3, n_head=4, n_positions=32)).eval()


CASES = {
    "llama": (lambda: model("Llama", **GQA), "model.layers.{}.mlp.down_proj", "model.layers.{}.self_attn.o_proj", 24),
    "qwen2": (lambda: model("Qwen2", **GQA), "model.layers.{}.mlp.down_proj", "model.layers.{}.self_attn.o_proj", 24),
    "gemma2": (
        lambda: model("Gemma2", **GQA, head_dim=4),
        "model.layers.{}.mlp.down_proj",
        "model.layers.{}.self_attn.o_proj",
        24,
    ),
    "phi3": (lambda: model("Phi3", **GQA), "model.layers.{}.mlp.down_proj", "model.layers.{}.self_attn.o_proj", 24),
    "gpt2": (gpt2, "transformer.h.{}.mlp.c_proj", "transformer.h.{}.attn.c_proj", 64),
    "neox": (
        lambda: model("GPTNeoX", **LLAMA),
        "gpt_neox.layers.{}.mlp.dense_4h_to_h",
        "gpt_neox.layers.{}.attention.dense",
        24,
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_down_projection_and_attention_output_are_found_by_what_runs(kind):
    make, down, mixed, inner = CASES[kind]
    made = make()
    layout = find_layout(made)
    assert layout.down == tuple(down.format(n) for n in range(3))
    assert layout.mixed == tuple(mixed.format(n) for n in range(3))
    assert (layout.depth, layout.hidden, layout.inner) == (3, 16, inner)
    assert layout.embedding is made.get_input_embeddings()
    assert weight_of(layout.module(made, layout.down[0])).shape == (16, inner)  # also where it is kept as (in, out)
    assert not any(m._forward_hooks for m in made.modules())


def test_a_model_with_an_adapter_over_it_has_the_names_of_the_bare_one():
    from peft import LoraConfig, get_peft_model

    bare = model("Llama", **GQA)
    names = find_layout(bare).down
    wrapped = get_peft_model(bare, LoraConfig(r=2, target_modules="all-linear"))
    layout = find_layout(wrapped)
    assert layout.down == names
    assert hasattr(layout.module(wrapped, names[0]), "lora_A")


def test_a_mixture_of_experts_is_refused():
    made = model("Mixtral", **GQA, num_local_experts=2)
    with pytest.raises(BadInput, match="mixture of experts"):
        find_layout(made)


def test_an_mlp_that_loses_the_rows_of_its_tokens_is_refused():
    made = model("OPT", hidden_size=16, ffn_dim=24, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=16)
    with pytest.raises(BadInput, match=r"fc1.*rows and tokens as one dimension"):
        find_layout(made)


def test_quantised_weights_are_refused():
    made = model("Llama", **GQA)
    made.model.layers[1].mlp.down_proj.weight = nn.Parameter(torch.zeros(16, 24, dtype=torch.int8), requires_grad=False)
    with pytest.raises(BadInput, match="quantised"):
        find_layout(made)


def test_linear_layers_of_another_kind_are_refused():
    class Packed(nn.Module):
        def forward(self, x):
            return x[..., :16]

    made = model("Llama", **GQA)
    for layer in made.model.layers:
        layer.mlp.down_proj, layer.self_attn.o_proj = Packed(), Packed()
    with pytest.raises(BadInput, match="write its residual stream"):
        find_layout(made)
