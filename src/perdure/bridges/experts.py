"""Low-rank factors on the experts of a mixture, which transformers stores in one parameter (experts, out, in) each.

PEFT adds scale x B A to the whole parameter before each forward. That needs a second copy of all experts until the backward,
forms a gradient as large as all experts, and rounds a small update away where the base is bfloat16. Here the factors of an
expert act on the tokens of this expert, as LoRA does in a dense layer: docs/design/experts.md has the measurements.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("gate_up_proj", "up_proj", "down_proj")  # of the parameters that transformers' own kernels for experts read
FACTORS = "lora_"  # the factors of a parameter are a submodule of its owner: experts.lora_gate_up_proj
VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
GROUPED = VERSION >= (2, 11)  # before, the grouped product on a CPU needs memory that is aligned


def expert_parameters(model: Any) -> dict[str, nn.Parameter]:
    """Return by name the parameters of experts that can get factors: (experts, out, in), or (experts, in, out) where transposed.

    These are the experts that transformers runs by interchangeable kernels, whose layout their module states. Quantised experts
    and those with a `forward` of their own (Llama 4) are not among them.
    """
    return {
        f"{name}.{end}": getattr(module, end)
        for name, module in model.named_modules()
        if _states_layout(module)
        for end in NAMES
        if end in module._parameters
    }


def experts_transposed(model: Any, name: str) -> bool:
    """Return whether the parameter of experts with this name is (experts, in, out)."""
    return bool(_owner(model, name)[0].is_transposed)


def weights_of(model: Any, name: str) -> Tensor:
    """Return the weights of the experts in the parameter of this name, (experts, out, in), as a view."""
    owner, end = _owner(model, name)
    weights: Tensor = getattr(owner, end)
    return weights.mT if owner.is_transposed else weights


class ExpertFactors(nn.Module):
    """The low-rank updates of one parameter of experts, by block, with the attributes of PEFT's LoRA layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_A, self.lora_B, self.lora_dropout = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self.enabled = True

    def add(self, block: str, weights: Tensor, rank: int) -> None:
        """Add fresh factors, which change nothing yet.

        Args:
            block: Name of the adapter in PEFT that they belong to.
            weights: What they update, (experts, out, in).
            rank: Rank of each expert's update.
        """
        experts, out, given = weights.shape
        down = torch.empty(experts, rank, given, device=weights.device)
        for one in down:
            nn.init.kaiming_uniform_(one, a=5**0.5)  # PEFT's start of A; B starts at zero
        self.lora_A[block] = _Factor(down)
        self.lora_B[block] = _Factor(torch.zeros(experts, out, rank, device=weights.device))
        self.lora_dropout[block], self.scaling[block] = nn.Identity(), 1.0

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        """Return the sum of scale x B A x over blocks, each token by the factors of its expert.

        Args:
            x: (tokens, in), sorted by expert.
            ends: (experts,) int32; where the tokens of each expert end.
        """
        total, *more = (self._of(block, x, ends) for block in self.scaling)
        for update in more:
            total = total + update
        return total

    def _of(self, block: str, x: Tensor, ends: Tensor) -> Tensor:
        """Return scale x B A x of one block."""
        layers: list[Any] = [self.lora_A[block], self.lora_B[block]]
        down, up = (layer.weight.to(x.dtype) for layer in layers)
        missing = -down.shape[1] % (16 // x.element_size())  # grouped products take 16 bytes at a time
        down, up = nn.functional.pad(down, (0, 0, 0, missing)), nn.functional.pad(up, (0, missing))
        inner = by_expert(self.lora_dropout[block](x), down.mT, ends) * self.scaling[block]
        return by_expert(inner, up.mT, ends)


class _Factor(nn.Module):
    """One factor of all experts, where PEFT has a linear layer."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)


def attach(model: Any, name: str, rank: int, block: str = "default") -> ExpertFactors:
    """Give a parameter of experts fresh factors in a block, which change nothing yet, and return all its factors."""
    owner, end = _owner(model, name)
    own = factors(model, name) or ExpertFactors()
    own.add(block, weights_of(model, name), rank)
    owner.add_module(FACTORS + end, own)
    owner.forward = MethodType(_forward, owner)
    return own


def detach(model: Any) -> None:
    """Take all factors away."""
    for owner in list(model.modules()):
        for end in [child for child, module in owner.named_children() if isinstance(module, ExpertFactors)]:
            delattr(owner, end)
            vars(owner).pop("forward", None)


def factors(model: Any, name: str) -> ExpertFactors | None:
    """Return the factors of the parameter of experts with this name; None where it has none."""
    owner, end = _owner(model, name)
    module = getattr(owner, FACTORS + end, None)
    return module if isinstance(module, ExpertFactors) else None


@contextmanager
def disabled(model: Any) -> Iterator[None]:
    """Inside, experts run without their factors."""
    modules = [module for module in model.modules() if isinstance(module, ExpertFactors)]
    for module in modules:
        module.enabled = False
    try:
        yield
    finally:
        for module in modules:
            module.enabled = True


def by_expert(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Return each token times the matrix of its expert, (tokens, out).

    Args:
        x: (tokens, in), sorted by expert.
        weight: (experts, in, out).
        ends: (experts,) int32; where the tokens of each expert end.
    """
    if GROUPED:
        return nn.functional.grouped_mm(x, weight, offs=ends)
    counts = ends.diff(prepend=ends.new_zeros(1)).tolist()
    return torch.cat([part @ matrix for part, matrix in zip(x.split(counts), weight, strict=True)])


def _forward(experts: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Return what the experts compute, as transformers does with `grouped_mm`, with the updates of their parameters.

    Args:
        experts: The module.
        hidden_states: (tokens, width).
        top_k_index: (tokens, experts a token).
        top_k_weights: (tokens, experts a token).
    """
    if not any(isinstance(module, ExpertFactors) and module.enabled for module in experts.children()):
        return type(experts).forward(experts, hidden_states, top_k_index, top_k_weights)
    many = top_k_index.shape[-1]
    mine, order = top_k_index.reshape(-1).sort(stable=True)
    ends = torch.searchsorted(
        mine, torch.arange(len(experts.down_proj), device=mine.device), right=True, out_int32=True
    )
    into = _linear(experts, "gate_up_proj" if experts.has_gate else "up_proj", hidden_states[order // many], mine, ends)
    inner = experts._apply_gate(into) if experts.has_gate else experts.act_fn(into)
    out = _linear(experts, "down_proj", inner, mine, ends)
    if experts.has_post_expert_norm:
        out = experts.post_expert_norm(out)
    out = out * top_k_weights.reshape(-1)[order, None]
    return out[order.argsort()].view(-1, many, out.shape[-1]).sum(1).to(hidden_states.dtype)


def _linear(experts: Any, end: str, x: Tensor, mine: Tensor, ends: Tensor) -> Tensor:
    """Return what one parameter of the experts, its bias and its factors make of tokens.

    Args:
        experts: The module.
        end: Name of the parameter.
        x: (tokens, in), sorted by expert.
        mine: (tokens,), the expert of each.
        ends: (experts,) int32; where the tokens of each expert end.
    """
    weight = getattr(experts, end)
    x = x.to(weight.dtype)
    out = by_expert(x, weight if experts.is_transposed else weight.mT, ends)
    if experts.has_bias:
        out = out + getattr(experts, f"{end}_bias")[mine]
    update = getattr(experts, FACTORS + end, None)
    return out if update is None or not update.enabled else out + update(x, ends)


def _owner(model: Any, name: str) -> tuple[Any, str]:
    parent, _, end = name.rpartition(".")
    return model.get_submodule(parent), end


def _states_layout(module: nn.Module) -> bool:
    """Return whether a module has experts that transformers' own kernels run, in dense parameters of three dimensions."""
    stated = ("has_gate", "has_bias", "is_transposed", "has_post_expert_norm", "_apply_gate")
    weights = [value for end in NAMES if (value := module._parameters.get(end)) is not None]
    if not all(hasattr(module, name) for name in stated) or getattr(module, "_is_expert_parallel", False):
        return False
    return len(weights) == 2 and all(v.ndim == 3 and v.is_floating_point() and len(v) > 1 for v in weights)
