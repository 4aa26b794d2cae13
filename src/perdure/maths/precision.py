"""The floating-point width in which sums are taken."""

import torch
from torch import Tensor


def wide(value: Tensor) -> Tensor:
    """Return `value` in float32, or as it is if wider: half precision loses in sums, and float64 is not cut down."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
