"""A base model in 4 or 8 bits, by bitsandbytes: how it is loaded, and what differs from one with plain weights."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from perdure.core.errors import BadInput

KINDS = {"nf4": "4-bit NormalFloat with double quantisation (QLoRA)", "int8": "LLM.int8() without outlier columns"}
WORDY = (  # loggers of bitsandbytes that write what no user can act on
    "bitsandbytes.autograd._functions",  # a line for each layer and forward: int8 products are made in float16
    "bitsandbytes.backends.cpu.ops",  # that a faster kernel could be downloaded
)

for name in WORDY:  # before PEFT imports bitsandbytes, which it does wherever that is installed
    logging.getLogger(name).setLevel(logging.ERROR)


def check_kind(kind: str | None) -> str | None:
    """Return a kind of quantisation, or None for plain weights.

    Raises:
        BadInput: No kind is named so, or bitsandbytes is not installed.
    """
    if kind is None:
        return None
    if kind not in KINDS:
        raise BadInput(f"unknown quantization {kind!r}; choose {' or '.join(KINDS)}, or leave it out for plain weights")
    if find_spec("bitsandbytes") is None:
        raise BadInput("quantization needs the package bitsandbytes: pip install 'perdure[quantization]'")
    return kind


def load_options(kind: str | None, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return what `from_pretrained` takes to quantise the linear layers of a model while it loads; {} for plain weights.

    The output layer and embeddings stay as they are. In int8, bitsandbytes by default computes those columns of a batch in 16
    bits that hold an outlier anywhere in the batch, so that an answer depends on the other rows of its batch (by 5 in a logit
    of SmolLM2-135M). Here there is no such threshold (0): each row has a scale of its own.
    """
    if kind is None:
        return {}
    from transformers import BitsAndBytesConfig

    config = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        if kind == "nf4"
        else BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    )
    return {"quantization_config": config, "device_map": {"": device}}


def without_packing(model: Any) -> None:
    """Have bitsandbytes leave the layout of nf4 weights on a CPU as it is.

    Its `Linear4bit` turns the weights into another layout in the first forward without gradients, on processors with
    AVX512-BF16. The product over that layout has no backward: a learn that follows a scoring would train on wrong gradients,
    with no more than a warning.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def every_weight_of_quantized(kind: str) -> str:
    """Return the error for a recipe that trains every weight of a quantised base."""
    return (
        f"the recipe trains every weight, and those of this workspace are quantised ({kind}); use a LoRA recipe, or make a "
        "workspace without --quantization"
    )


def dequantized(layer: Any) -> torch.Tensor:
    """Return the weight (out, in) of a linear layer of bitsandbytes in float32, as its forward computes with it."""
    from bitsandbytes.functional import dequantize_4bit

    stored = layer.weight
    if hasattr(stored, "quant_state"):
        return dequantize_4bit(stored.data, stored.quant_state).float()
    scales = layer.state.SCB if stored.SCB is None else stored.SCB  # the first forward moves them
    return stored.data.float() * scales.float()[:, None] / 127


def refuse_not_finite(folder: Path) -> None:
    """Refuse stored weights that are not numbers, before they are rounded to a few bits. Cost: reads every weight once.

    Raises:
        BadInput: One contains NaN or infinity; it is named.
    """
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping)
                value = file.get_tensor(name)
                if value.is_floating_point() and value.numel() and not torch.isfinite(value).all():
                    raise BadInput(
                        f"{name} in {folder} holds NaN or infinity; the model is damaged, download or copy it again"
                    )
