"""Adapters lie on the layers that were asked for, all of them; what cannot get one is named, with what was probably meant."""

import re

import pytest
import torch

from architectures import ARCHITECTURES, COMMON, ONE_WINDOW, make
from perdure.bridges.targets import chosen, left_out, linear_layers, taken_for_experts, without_adapter
from perdure.core.errors import BadSpec

QV = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"]


@pytest.fixture(scope="module")
def llama():
    return make("llama")


@pytest.fixture(scope="module")
def pictures():
    """A Gemma 3 that takes pictures too."""
    from transformers import AutoConfig, AutoModelForCausalLM

    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(
        "gemma3",
        text_config={**COMMON, **ONE_WINDOW, "head_dim": 16, "query_pre_attn_scalar": 16},
        vision_config={**vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=112,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def test_all_linear_is_every_linear_layer_but_the_output(llama):
    found = chosen(llama, "all-linear")
    assert len(found) == 2 * 7
    assert "lm_head" not in found


MIXING = r"attn|attention|mamba|mixer|conv|temporal"  # parts of names of what mixes tokens, in the models below
NO_MLP = ("mamba", "mamba2", "rwkv")


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in NO_MLP])
def test_mlp_linear_is_every_layer_but_those_that_mix_tokens(name):
    with torch.device("meta"):
        model = make(name)
    found = chosen(model, "mlp-linear")
    rest = [layer for layer in chosen(model, "all-linear") if re.search(r"\.\d+\.", layer) and layer not in found]
    assert found
    assert not [layer for layer in found if re.search(MIXING, layer)]
    assert not [layer for layer in rest if not re.search(MIXING, layer)]


@pytest.mark.parametrize("name", NO_MLP)
def test_mlp_linear_of_a_model_without_an_mlp_is_every_layer(name):
    with torch.device("meta"):
        model = make(name)
    assert chosen(model, "mlp-linear") == chosen(model, "all-linear")


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (["q_proj", "v_proj"], 4),
        ("q_proj", 2),
        (["self_attn.q_proj"], 2),
        (["model.layers.1.mlp.down_proj", "k_proj"], 3),
        (r"model\.layers\.0\..*_proj", 7),  # one string may be a pattern of whole names, as in PEFT
        (r".*\.(q|v)_proj", 4),
    ],
)
def test_names_ends_of_names_and_a_pattern_are_understood(llama, wanted, count):
    assert len(chosen(llama, wanted)) == count


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["q_proj", "v_projj", "gate_prj"], ["'v_projj' matches no", "did you mean v_proj", "'gate_prj'", "gate_proj"]),
        (["q_proj", "lm_head"], ["'lm_head' is the output layer"]),
        (["embed_tokens"], ["'embed_tokens' is a Embedding"]),
        (["q_proj", "input_layernorm"], ["'input_layernorm' is a LlamaRMSNorm"]),
        (["mlp"], ["'mlp' is a LlamaMLP"]),
        (["c_attn"], ["'c_attn' matches no linear layer", "q_proj"]),
        (["model.layers.7.self_attn.q_proj"], ["did you mean q_proj"]),
        (["_proj"], ["'_proj' matches no"]),  # PEFT reads an end of a name from a dot on
        ("model.layers.(", ["'model.layers.(' matches no"]),
    ],
)
def test_each_name_that_means_no_layer_is_told_with_the_nearest(llama, wanted, words):
    with pytest.raises(BadSpec) as error:
        chosen(llama, wanted)
    for word in words:
        assert word in str(error.value)


def test_layers_that_text_does_not_run_through_get_no_adapter(pictures):
    found = chosen(pictures, "all-linear")
    assert len(found) == 14
    assert all(name.startswith("model.language_model.") for name in found)
    assert len(chosen(pictures, ["q_proj"])) == 2  # not those of the vision tower
    with pytest.raises(BadSpec, match="fc1' is in a part of the model that text does not run through"):
        chosen(pictures, ["fc1"])


def test_experts_get_an_adapter_and_are_known_by_the_names_of_their_parameters():
    made = make("qwen3_moe")
    found = chosen(made, "all-linear")
    assert [name for name in found if "expert" in name] == [
        f"model.layers.{layer}.mlp.experts.{end}" for layer in (0, 1) for end in ("gate_up_proj", "down_proj")
    ]
    assert chosen(made, ["q_proj", "experts.down_proj"]) == [
        name for name in found if name.endswith(("q_proj", "down_proj"))
    ]
    assert chosen(made, r".*\.1\.mlp\.experts\..*") == found[-2:]
    assert left_out(made).share < 0.02
    assert without_adapter(made) is None
    with pytest.raises(BadSpec, match=r"'gate_proj' matches no linear layer.*did you mean gate_up_proj"):
        chosen(made, ["q_proj", "gate_proj"])


def test_experts_of_an_adapter_without_them_are_told_with_their_share():
    made = make("qwen3_moe")
    layers = linear_layers(made)
    rest = left_out(made, layers)
    assert rest.names[0] == "model.layers.*.mlp.experts.gate_up_proj"
    experts = sum(v.numel() for n, v in made.named_parameters() if ".experts." in n)
    assert 0.6 < experts / (experts + sum(m.weight.numel() for m in layers.values())) < rest.share + 0.02 < 0.75
    assert "head goes on training was begun without them" in without_adapter(made, layers)


def test_experts_of_another_layout_are_told_with_their_share():
    made = make("llama4_text")
    rest = left_out(made)
    assert rest.names[0] == "model.layers.*.feed_forward.experts.gate_up_proj"
    assert 0.5 < rest.share < 0.6
    assert "as no layer that LoRA knows has them" in without_adapter(made)
    with pytest.raises(BadSpec, match="'gate_up_proj' is a parameter"):
        chosen(made, ["q_proj", "gate_up_proj"])


@pytest.mark.parametrize(("name", "share"), [("llama", 0.02), ("gpt2", 0.02), ("opt", 0.02)])
def test_a_dense_model_leaves_nothing_out(name, share):
    assert left_out(make(name)).share < share


def test_gpt2_keeps_its_layers_as_conv1d_and_they_get_adapters_all_the_same():
    assert {name.rsplit(".", 1)[-1] for name in chosen(make("gpt2"), "all-linear")} == {"c_attn", "c_proj", "c_fc"}


@pytest.mark.parametrize("name", ["qwen3_next", "deepseek_v3"])
def test_dense_layers_that_peft_takes_for_experts_get_an_adapter_too(name):
    made = make(name)
    found = chosen(made, "all-linear")
    shared = taken_for_experts(made, linear_layers(made))
    assert len(shared) == 6
    assert shared < set(found)
    assert {layer.rsplit(".", 1)[-1] for layer in shared} == {"gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(("name", "end"), [("mamba", "out_proj"), ("llama4_text", "router")])
def test_what_peft_does_not_adapt_is_left_out_and_told(name, end):
    from peft import LoraConfig, get_peft_model

    made = make(name)
    found = chosen(made, "all-linear")
    assert not any(layer.endswith(f".{end}") for layer in found)
    assert left_out(made).share > 0.01
    with pytest.raises(BadSpec, match=f"'{end}' (gets no adapter from PEFT|is a Llama4Router)"):
        chosen(made, [end])
    wrapped = get_peft_model(made, LoraConfig(r=2, target_modules=found)).base_model.model
    assert [n for n, m in wrapped.named_modules() if hasattr(m, "lora_A")] == found
    assert chosen(wrapped, "all-linear") == found
    assert wrapped(input_ids=torch.ones(1, 3, dtype=torch.long)).logits.isfinite().all()
