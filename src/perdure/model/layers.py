"""Structure of a causal language model: its text part, its modules and linear layers, its longest text."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from perdure.core.errors import BadInput

CONV1D = ("Conv1D", "transformers.pytorch_utils")  # GPT-2's linear layer, recognised without importing transformers


def is_linear(module: Any) -> bool:
    """Return whether a module is a dense linear layer: `Linear`, or GPT-2's `Conv1D`."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: Any) -> bool:
    """Return whether a module is a linear layer with a weight (in, out), as `Conv1D` has; that of `Linear` is (out, in)."""
    return any((kind.__name__, kind.__module__) == CONV1D for kind in type(module).__mro__)


def weight_of(module: nn.Module) -> Tensor:
    """Return the weight of a linear layer, wrapped by an adapter or not, as (out, in)."""
    layer: Any = getattr(module, "base_layer", module)
    weight: Tensor = layer.weight
    return weight.T if is_transposed(layer) else weight


def is_quantized(module: Any) -> bool:
    """Return whether a linear layer stores its weight as integers (two values in one where they have four bits)."""
    return is_linear(module) and not module.weight.is_floating_point()


def shape_of(module: nn.Module) -> tuple[int, int]:
    """Return (out, in) of a linear layer, wrapped by an adapter or not, quantised or not."""
    layer: Any = getattr(module, "base_layer", module)
    if is_quantized(layer):
        return layer.out_features, layer.in_features
    rows, columns = weight_of(layer).shape
    return rows, columns


def is_mixture(model: Any) -> bool:
    """Return whether a model has experts, in whatever layout."""
    return any("expert" in name for name, _ in model.named_modules())


def modules_of(model: Any) -> dict[str, nn.Module]:
    """Return the modules of the base model by name, under their names without adapters."""
    named = {n: m for n, m in model.named_modules() if ".lora_" not in n and ".base_layer" not in n}
    return {name: getattr(module, "base_layer", module) for name, module in named.items()}


def text_part(model: Any) -> str:
    """Return the common prefix of the names of the modules that text runs through; "" where these are all modules."""
    if model.config.get_text_config() is model.config:
        return ""
    decoder = model.get_decoder()
    return next((f"{name}." for name, module in model.named_modules() if module is decoder and name), "")


def decoder_blocks(root: Any) -> tuple[str, list[nn.Module]]:
    """Return the name of the list of decoder blocks of a model without adapters, and the blocks, first to last.

    It is the list of modules with the most parameters, in the part that text runs through.

    Raises:
        BadInput: The model has no list of modules.
    """
    text = text_part(root)
    lists = [
        (name, m)
        for name, m in root.named_modules()
        if isinstance(m, nn.ModuleList) and len(m) and name.startswith(text)
    ]
    if not lists:
        raise BadInput(
            "this model has no list of decoder blocks; editing and routing support transformer decoders only. Train facts "
            "(perdure learn), and give the task of a request (--task)"
        )
    name, blocks = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    return name, list(blocks)


def per_token(root: Any, names: Iterable[str]) -> list[str]:
    """Return those of the named weights of decoder blocks that read one token at a time: of the MLP, and of experts.

    The others are in a module that mixes tokens, below its block: one that knows the number of its block, as what has a place in
    the cache must (`layer_idx`, formerly `layer_id`), or one with a convolution.

    Args:
        root: A model without adapters; its weights may be on the meta device.
        names: Names of modules or of their parameters.

    Raises:
        BadInput: The model has no list of decoder blocks.
    """
    blocks, _ = decoder_blocks(root)
    modules, start = modules_of(root), blocks.count(".") + 2
    mixing = {name for name, module in modules.items() if _mixes_tokens(module)}

    def parents(name: str) -> Iterator[str]:
        parts = name.split(".")
        return (".".join(parts[:end]) for end in range(start + 1, len(parts) + 1))

    return [name for name in names if name.startswith(f"{blocks}.") and mixing.isdisjoint(parents(name))]


def _mixes_tokens(module: nn.Module) -> bool:
    """Return whether a module, other than a block, has a place in the cache or a convolution."""
    numbered = any(hasattr(module, name) for name in ("layer_idx", "layer_id"))
    return numbered or any(isinstance(child, nn.Conv1d) for child in module.children())


def positions_of(config: Any) -> int | None:
    """Return the most tokens a text may have for a model of this configuration; None where it sets no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
