"""Which layers and experts of a model get an adapter: by their structure, or named by the user; and which weights get none."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from perdure.bridges.experts import expert_parameters
from perdure.core.errors import BadSpec
from perdure.core.words import some
from perdure.model.layers import is_linear, is_quantized, is_transposed, modules_of, per_token, text_part

ALL, MLP = "all-linear", "mlp-linear"
WORTH_A_NOTICE = 0.01  # share of the weights without adapter from which the user gets a notice


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """Return by name the layers of a model that can get an adapter, or have one.

    These are the linear layers that text runs through, except the output layer and what PEFT does not adapt (a Mamba layer's
    fused output). Where a model takes pictures or sound too, they are those of its text decoder.

    Args:
        model: Without PEFT's wrapper around it; its layers may be wrapped.
    """
    output, text = model.get_output_embeddings(), text_part(model)
    layers = {
        name: module
        for name, module in modules_of(model).items()
        if _adaptable(module) and module is not output and name.startswith(text)
    }
    refused = {end for end in {_end(name) for name in layers} if _peft_refuses(model, end)}
    return {name: module for name, module in layers.items() if _end(name) not in refused}


def adaptable(model: Any) -> dict[str, nn.Parameter]:
    """Return by name the weights that can get an adapter, or have one: of linear layers, and all experts of a mixture in one.

    A linear layer has its own name, experts that of their parameter (`mlp.experts.down_proj`).

    Args:
        model: As for `linear_layers`.
    """
    text = text_part(model)
    experts = {name: value for name, value in expert_parameters(model).items() if name.startswith(text)}
    layers: dict[str, Any] = linear_layers(model)
    return {name: layer.weight for name, layer in layers.items()} | experts


def chosen(model: Any, wanted: str | Sequence[str]) -> list[str]:
    """Return the names of what `lora_target_modules` means: of linear layers, in the model's order, then of experts.

    Args:
        model: As for `linear_layers`; its weights may be on the meta device.
        wanted: "all-linear"; "mlp-linear" for those that read one token at a time, or all where a model has none (Mamba); names
            or ends of names ("q_proj", "self_attn.q_proj", "experts.down_proj"); or, as one string, a regular expression that
            matches whole names, as in PEFT.

    Raises:
        BadSpec: No layer can get an adapter, a name matches no module, or only modules that cannot get one; the message has each
            of them, with the nearest known names.
    """
    layers = adaptable(model)
    if wanted in (ALL, MLP):
        if not layers:
            raise BadSpec(
                "this model has no linear layer that could get an adapter; train its weights with train: full"
            )
        return (per_token(model, layers) if wanted == MLP else []) or list(layers)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    matches: set[str] = set()
    wrong = []
    for name in names:
        mine = _matches(name, layers, pattern=isinstance(wanted, str))
        matches.update(mine)
        if not mine:
            wrong.append(_why_not(model, name, layers))
    if wrong:
        raise BadSpec(f"lora_target_modules: {'; '.join(wrong)}")
    return [layer for layer in layers if layer in matches]


@dataclass(frozen=True)
class LeftOut:
    """Weights of a model's blocks that get no adapter, so that LoRA leaves them as they are.

    Args:
        names: Names of the parameters without the numbers of their blocks, the largest first.
        share: Their part of the weights that text runs through, without embeddings.
    """

    names: tuple[str, ...]
    share: float


def left_out(model: Any, names: Collection[str] | None = None) -> LeftOut:
    """Return the weights without an adapter.

    Args:
        model: As for `linear_layers`.
        names: What has an adapter, as `chosen` names it; None for what "all-linear" gives one.
    """
    text, tables = text_part(model), [m for m in model.modules() if isinstance(m, nn.Embedding)]
    embeddings = {id(value) for table in (*tables, model.get_output_embeddings()) for value in table.parameters()}
    own = {
        n: v
        for n, v in model.named_parameters()
        if n.startswith(text) and id(v) not in embeddings and ".lora_" not in n
    }
    known = adaptable(model)
    adapted = {id(value) for name, value in known.items() if names is None or name in names}
    sizes: dict[str, int] = {}
    for name, value in own.items():
        bias = value.ndim < 2 or name.endswith("bias")  # those of experts have two dimensions
        if id(value) not in adapted and not bias:
            kind = re.sub(r"\.\d+(?=\.|$)", ".*", name)
            sizes[kind] = sizes.get(kind, 0) + _size(value)
    total = sum(map(_size, own.values()))
    return LeftOut(tuple(sorted(sizes, key=lambda kind: -sizes[kind])), sum(sizes.values()) / max(total, 1))


def _size(value: Tensor) -> int:
    """Return how many weights a parameter holds; bytes hold two each of 4 bits."""
    return value.numel() * (2 if value.dtype == torch.uint8 else 1)


def without_adapter(model: Any, names: Collection[str] | None = None) -> str | None:
    """Return a notice of the weights without an adapter; None where they are few. Arguments are those of `left_out`."""
    rest = left_out(model, names)
    if rest.share < WORTH_A_NOTICE:
        return None
    why = "as no layer that LoRA knows has them"
    if names is not None and not known_later(model).isdisjoint(adaptable(model).keys() - set(names)):
        why = "since the adapter that head goes on training was begun without them; start: base begins one with experts"
    return f"{rest.share:.0%} of the weights get no adapter, {why}: {some(rest.names)}; --recipe full trains them"


def known_later(model: Any) -> set[str]:
    """Return the names of what "all-linear" left out once: experts, and linear layers that PEFT takes for experts."""
    linear = linear_layers(model)
    return {name for name in adaptable(model) if name not in linear} | taken_for_experts(model, linear)


def taken_for_experts(model: Any, names: Collection[str]) -> set[str]:
    """Return the names of linear layers that PEFT takes for experts. PEFT recognises experts by their former names."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    ends = set()
    for end in {_end(name) for name in names}:
        config = LoraConfig(target_modules=[end])
        try:
            convert_peft_config_for_transformers(config, model, None)
        except ValueError:  # one of two that are one parameter now
            ends.add(end)
        if set(config.target_modules or ()) != {end}:
            ends.add(end)
    return {name for name in names if _end(name) in ends}


def _end(name: str) -> str:
    return name.rsplit(".", 1)[-1]


@torch.no_grad()
def _adaptable(module: Any) -> bool:
    """Return whether a module is a linear layer that returns its outputs. A layer with its own `forward` may not (a router)."""
    if not is_linear(module):
        return False
    if type(module).forward is nn.Linear.forward or is_transposed(module) or is_quantized(module):
        return True
    given = torch.zeros(1, module.in_features, dtype=module.weight.dtype, device=module.weight.device)
    out = module(given)
    return isinstance(out, torch.Tensor) and out.shape == (1, module.out_features)


def _peft_refuses(model: Any, end: str) -> bool:
    """Return whether PEFT refuses to adapt the layers whose names end so."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba

    try:
        _check_lora_target_modules_mamba(LoraConfig(target_modules=[end]), model, end)
    except ValueError:
        return True
    return False


def _matches(name: str, layers: Mapping[str, Any], *, pattern: bool) -> list[str]:
    ends = [layer for layer in layers if layer == name or layer.endswith(f".{name}")]
    if ends or not pattern:
        return ends
    try:
        return [layer for layer in layers if re.fullmatch(name, layer)]
    except re.error:
        return []


def _why_not(model: Any, name: str, layers: Mapping[str, Any]) -> str:
    """Return why a name means no layer that can get an adapter."""
    modules = modules_of(model)
    at = _matches(name, {layer: None for layer in modules if layer}, pattern=True)
    parameters = [n for n, _ in model.named_parameters() if n.endswith(f".{name}") and n not in modules]
    if any(modules[layer] is model.get_output_embeddings() for layer in at):
        return f"{name!r} is the output layer, which gets no adapter"
    if any(_adaptable(modules[layer]) and _peft_refuses(model, _end(layer)) for layer in at):
        return f"{name!r} gets no adapter from PEFT in a model of this kind"
    if any(_adaptable(modules[layer]) for layer in at):
        return f"{name!r} is in a part of the model that text does not run through"
    if at:
        return f"{name!r} is a {type(modules[at[0]]).__name__}, and only linear layers get an adapter"
    if parameters:
        return f"{name!r} is a parameter ({parameters[0]}) of a kind that gets no adapter"
    ends = sorted({_end(layer) for layer in layers})
    near = get_close_matches(_end(name), ends, n=2, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}" if near else f"known are {', '.join(ends)}"
    return f"{name!r} matches no linear layer of this model; {meant}"
