"""The loss of each row of memory, measured at the start of a task and updated whenever the row is drawn."""

from collections.abc import Iterable

import torch
from torch import Tensor

from perdure.core.step import Slice


def losses_of(slices: Iterable[Slice]) -> Tensor | None:
    """Return the mean cross-entropy per label token of each row (rows,), float32 on the CPU; None without rows.

    Args:
        slices: The model's outputs on all rows of a pool, in any order.
    """
    measured = [rows.by_row(rows.cross_entropy()) for rows in slices]
    if not measured:
        return None
    places, losses = (torch.cat(part) for part in zip(*measured, strict=True))
    return losses[places.argsort()].float().cpu()


def renewed(known: Tensor, seen: tuple[Tensor, Tensor]) -> Tensor:
    """Return the known losses (rows,) with new values for some rows, given their indices and measured losses."""
    places, losses = seen
    return known.index_copy(0, places.to(known.device), losses.to(known))
