"""The floating-point width in which sums are taken."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Return a context in which products keep the width of their factors: autocast would round each to bfloat16."""
    return torch.autocast(device.type, enabled=False)


def wide(value: Tensor) -> Tensor:
    """Return `value` in float32, or as it is if wider: half precision loses in sums, and float64 is not cut down."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
