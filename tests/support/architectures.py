"""Tiny language models of many architectures, with windows and chunks that are smaller than the texts they are given."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

COMMON = {
    "vocab_size": 120,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    **dict.fromkeys(("dropout", "attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0),
}
WINDOW = 16
ONE_WINDOW = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4}
HEADS = {"head_dim": 16}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, **HEADS}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}

# name: model type, configuration, and how its rows are read (see `Batching.decoding`)
ARCHITECTURES = {
    "llama": ("llama", {}, "between"),
    "qwen2": ("qwen2", {}, "between"),
    "qwen2 with a window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
        "before",
    ),
    "qwen3": ("qwen3", HEADS, "between"),
    "gemma2": ("gemma2", {**HEADS, "sliding_window": WINDOW, "query_pre_attn_scalar": 16}, "before"),
    "gemma3_text": ("gemma3_text", {**HEADS, **ONE_WINDOW, "query_pre_attn_scalar": 16}, "before"),
    "mistral": ("mistral", {"sliding_window": WINDOW}, "before"),
    "phi3": ("phi3", {"sliding_window": WINDOW}, "before"),
    "phi": ("phi", {}, "between"),
    "gpt2": ("gpt2", {**GPT, "n_positions": 512}, "between"),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
        "before",
    ),
    "gpt_neox": ("gpt_neox", {}, "between"),
    "gptj": ("gptj", {**GPT, "rotary_dim": 8}, "between"),
    "opt": ("opt", {"ffn_dim": 128, "word_embed_proj_dim": 64}, "between"),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}, "between"),
    "mpt": ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2}, "before"),
    "falcon with alibi": ("falcon", {"alibi": True, "new_decoder_architecture": False}, "between"),
    "falcon": ("falcon", {"alibi": False}, "between"),
    "olmo2": ("olmo2", {}, "between"),
    "olmo3": ("olmo3", ONE_WINDOW, "before"),
    "cohere": ("cohere", {}, "between"),
    "cohere2": ("cohere2", ONE_WINDOW, "before"),
    "stablelm": ("stablelm", {}, "between"),
    "starcoder2": ("starcoder2", {"sliding_window": WINDOW}, "before"),
    "qwen3_moe": ("qwen3_moe", EXPERTS, "between"),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}, "between"),
    "deepseek_v3": (
        "deepseek_v3",
        {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "num_key_value_heads": 4,
        },
        "between",
    ),
    "granitemoe": ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}, "between"),
    "mixtral": ("mixtral", {"num_local_experts": 4, "sliding_window": WINDOW}, "before"),
    "gpt_oss": ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, **HEADS, **ONE_WINDOW}, "before"),
    "llama4_text": (
        "llama4_text",
        {
            "num_local_experts": 2,
            "attention_chunk_size": WINDOW,
            "intermediate_size_mlp": 128,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
            "floor_scale": 8,  # queries are scaled by the column they stand in, padding included
            "attn_scale": 0.5,
            **HEADS,
        },
        "whole",
    ),
    "granite": ("granite", {}, "between"),
    "glm4": ("glm4", HEADS, "between"),
    "smollm3": ("smollm3", {}, "between"),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}, "padded"),
    "bamba": ("bamba", {**MAMBA, "attn_layer_indices": [1]}, "padded"),
    "falcon_h1": ("falcon_h1", {**MAMBA, "mamba_d_ssm": 128, **HEADS}, "padded"),
    "jamba": (
        "jamba",
        {
            "num_experts": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        "padded",
    ),
    "qwen3_next": (
        "qwen3_next",
        {
            **EXPERTS,
            "shared_expert_intermediate_size": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "layer_types": ["linear_attention", "full_attention"],
        },
        "padded",
    ),
    "minimax": (
        "minimax",
        {"layer_types": ["linear_attention", "full_attention"], "num_local_experts": 2, "block_size": 8, **HEADS},
        "whole",
    ),
    "mamba": ("mamba", {"state_size": 8}, "whole"),
    "mamba2": ("mamba2", {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 8}, "whole"),
    "recurrent_gemma": (
        "recurrent_gemma",
        {"lru_width": 64, "attention_window_size": WINDOW, "block_types": ["recurrent", "attention"], **HEADS},
        "whole",
    ),
    "rwkv": ("rwkv", {"attention_hidden_size": 64, "context_length": 512}, "whole"),
    "bart's decoder": (
        "bart",
        {"d_model": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 128, "encoder_layers": 1},
        "whole",
    ),
}


def make(name: str, sharper: float = 3.0, **fields):  # type: ignore[no-untyped-def]
    """Return the tiny model, with other fields in its configuration perhaps.

    Its weights are made larger, since a fresh network hardly looks at its context.
    """
    kind, more, _ = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **more, **fields})).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                value *= sharper
    return model
