"""Runtimes whose adapter is no longer the one that it began as."""

import torch

from perdure.core.settings import Settings
from perdure.core.slots import SKILL


def trained(runtime, seed, **fields):
    """Start a fresh adapter and move it, as training would; return its slots."""
    runtime.load({})
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in runtime.start_adapter(Settings(**fields), seed, "task").values():
            value.add_(0.1 * torch.randn_like(value))
    runtime.freeze()
    return {SKILL: runtime.skill()}
