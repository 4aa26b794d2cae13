"""PEFT adapters with random factors, as a user has them in a folder."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

QV = ["q_proj", "v_proj"]


def save(model: Path, folder: Path, seed: int = 0, size: float = 0.3, **options: Any) -> Path:
    """Write an adapter of the model whose two factors are random, and return its folder."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": QV, "task_type": "CAUSAL_LM", **options}
    made = get_peft_model(base, LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if ".lora_" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * size)
    made.save_pretrained(str(folder))
    return folder
