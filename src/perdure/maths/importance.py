"""How much each weight matters to what was learned. Pure functions of tensors by parameter name."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from perdure.maths.precision import wide

Tensors = dict[str, Tensor]


def to_state(kind: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return `tensors` under the keys of a method's state: "<kind>.<parameter name>"."""
    return {f"{kind}.{name}": value for name, value in tensors.items()}


def from_state(state: Mapping[str, Tensor], kind: str) -> Tensors:
    """Return the tensors of this kind from a method's state, by parameter name: "anchor.<name>" has kind "anchor"."""
    start = f"{kind}."
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def copies(params: Mapping[str, Tensor]) -> Tensors:
    """Return the values of `params` in float32 or wider, never the same memory."""
    return {name: wide(value.detach().clone()) for name, value in params.items()}


def unit_mean(importance: Mapping[str, Tensor]) -> Tensors:
    """Return `importance` scaled to mean 1 over all weights together; as it is where all of it is zero."""
    mean = sum(value.sum().item() for value in importance.values()) / max(
        sum(value.numel() for value in importance.values()), 1
    )
    return {name: value / (mean or 1.0) for name, value in importance.items()}


def added(known: Mapping[str, Tensor], more: Mapping[str, Tensor], decay: float = 1.0) -> Tensors:
    """Return decay x known + more, by name; a name that only one of them has counts as zero in the other."""
    old = {name: decay * value for name, value in known.items()}
    return old | {name: old[name] + value if name in old else value for name, value in more.items()}


def mean_square(batches: Iterable[Mapping[str, Tensor]]) -> Tensors:
    """Return the mean over rows of g^2, from batches of per-row gradients g (rows, *shape): the diagonal Fisher information."""
    return _row_mean(batches, Tensor.square)


def mean_size(batches: Iterable[Mapping[str, Tensor]]) -> Tensors:
    """Return the mean over rows of |g|, from batches of per-row gradients g (rows, *shape)."""
    return _row_mean(batches, Tensor.abs)


def _row_mean(batches: Iterable[Mapping[str, Tensor]], of: Callable[[Tensor], Tensor]) -> Tensors:
    sums: Tensors = {}
    rows = 0
    for batch in batches:
        count = 0
        for name, grads in batch.items():
            count = len(grads)
            part = _sum(of(grads))
            sums[name] = sums[name].add_(part) if name in sums else part
        rows += count
    return {name: value.contiguous() / rows for name, value in sums.items()}


def _sum(rows: Tensor) -> Tensor:
    """Return the sum over the first axis, in the order of memory: across it, a CPU takes up to ten times as long."""
    return rows.mT.sum(0).mT if rows.dim() > 2 and rows.mT.is_contiguous() else rows.sum(0)


def along_path(
    path: Mapping[str, Tensor], grads: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> Tensors:
    """Return path - grads x (after - before): what each weight's moves took off the loss so far, to first order, in nats."""
    names = list(after)
    moves = torch._foreach_sub([wide(after[n].detach()) for n in names], [wide(before[n]) for n in names])
    sums = torch._foreach_addcmul([path[n] for n in names], [wide(grads[n]) for n in names], moves, value=-1.0)
    return dict(zip(names, sums, strict=True))


def path_importance(path: Mapping[str, Tensor], moved: Mapping[str, Tensor], damping: float) -> Tensors:
    """Return max(0, path) / (moved^2 + xi), with xi = damping x the mean of moved^2 over all weights.

    Args:
        path: What each weight took off the loss over the task.
        moved: How far each went in it.
        damping: Above 0; stops weights that hardly moved from counting most.

    Source: Zenke et al., "Continual Learning Through Synaptic Intelligence", ICML 2017, arXiv 1703.04200, eq. 5.
    Deviation: xi is relative, so that it means the same for weights that move by 0.01 (LoRA) as by 1.
    """
    count = sum(value.numel() for value in moved.values())
    xi = damping * sum(value.square().sum().item() for value in moved.values()) / max(count, 1)
    if not xi:
        return {name: torch.zeros_like(value) for name, value in moved.items()}
    return {name: path[name].clamp(min=0) / (way.square() + xi) for name, way in moved.items()}


def layer_of(name: str) -> str:
    """Return the layer of a parameter: its name up to the first number, the block; without one, up to its last part."""
    block = re.match(r"(?:.*?\.)?\d+(?=\.)", name)
    return block.group() if block else name.rpartition(".")[0]


def layer_factors(importance: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the factor of each layer: layers x softmax over layers of the root mean square of its importance; mean 1.

    Source: Song et al. 2025, arXiv 2501.13669, whose factor is the softmax of the L2 norms. Deviation: the norm is divided by the
    root of the layer's size, and the softmax multiplied by the number of layers; else a block of 80 000 weights of importance 1
    has norm 283 and the softmax gives all to one layer.
    """
    squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name in sorted(importance):
        sums = squares[layer_of(name)]
        sums[0] += importance[name].square().sum().item()
        sums[1] += importance[name].numel()
    sizes = torch.tensor([total / count for total, count in squares.values()], dtype=torch.float64).sqrt()
    return dict(zip(squares, (len(squares) * sizes.softmax(0)).tolist(), strict=True))
