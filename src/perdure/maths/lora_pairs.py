"""The LoRA pairs among parameters, by PEFT's names."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from perdure.maths.anchors import Factors

DOWN, UP = ".lora_A.", ".lora_B."


def up_of(down: str) -> str:
    """Return the name of the B that belongs to the A of this name."""
    return down.replace(DOWN, UP)


def factors(params: Mapping[str, Tensor], down: str) -> Factors:
    """Return B and A of the LoRA pair whose A is named `down`."""
    return params[up_of(down)], params[down]


def paired(name: str, params: Iterable[str]) -> bool:
    """Return whether `name` is one factor of a LoRA pair."""
    return (DOWN in name and up_of(name) in params) or (UP in name and name.replace(UP, DOWN) in params)
