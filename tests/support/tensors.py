"""Tensors written out by hand."""

import torch


def tensor(*values):
    """Return the values in double precision."""
    return torch.tensor(values, dtype=torch.float64)
