"""Averages of weights over time. Pure functions of tensors by parameter name."""

from collections.abc import Mapping

from torch import Tensor

from perdure.maths.precision import wide


def moved_average(average: Mapping[str, Tensor], params: Mapping[str, Tensor], decay: float) -> dict[str, Tensor]:
    """Return decay x average + (1 - decay) x w for each weight w, in float32 or wider.

    Args:
        average: The average so far; it begins as w where it has none.
        params: The weights w.
        decay: Share of the old average that stays, in [0, 1].

    Example:
        >>> import torch
        >>> moved_average({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.75)
        {'w': tensor([1.])}
    """
    moved = {}
    for name, value in params.items():
        new = wide(value.detach())
        old = average.get(name, new)
        moved[name] = old + (1 - decay) * (new - old)
    return moved
