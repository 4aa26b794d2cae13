"""A user's PEFT adapter as the tensors of a slot: read where a slot computes what PEFT computes, else refused by name."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perdure.bridges.hub_files import commit_of, fetched
from perdure.bridges.sizes import shell
from perdure.bridges.targets import linear_layers
from perdure.core.errors import BadInput
from perdure.core.plain_json import read_json
from perdure.core.plain_text import quoted
from perdure.core.plan import PREFIX
from perdure.core.words import counted, some
from perdure.maths.low_rank import Patch, to_tensors

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
FORMS = f"a folder with {CONFIG}, or a hub id as ORG/NAME or ORG/NAME@REVISION"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Fields of an adapter's configuration that decide nothing of its outputs, beside those that PEFT applies below.
WITHOUT_EFFECT = (
    *("auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout"),
    *("megatron_core", "loftq_config", "eva_config", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
)
APPLIED = (
    *("r", "target_modules", "exclude_modules", "lora_alpha", "use_rslora", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "fan_in_fan_out"),
)
OWN_INIT = (True, False, None, "gaussian", "eva", "orthogonal")  # the others change the base model's weights
MERGE = (
    "merge it into its base model with PEFT (PeftModel.merge_and_unload, then save_pretrained) and make the workspace for the "
    "merged model"
)
REASONS = {
    "bias": "it trained biases, which are no part of a low-rank update",
    "modules_to_save": "it stores whole layers beside the low-rank update",
    "use_dora": "DoRA scales each weight by its norm, which no low-rank update does",
    "trainable_token_indices": "it trained embeddings of single tokens",
    "target_parameters": "it adapts parameters of experts, which are not read yet",
    "layer_replication": "it repeats layers of the model",
    "alora_invocation_tokens": "it acts only after its invocation tokens",
    "lora_bias": "it trained biases, which are no part of a low-rank update",
    "init_lora_weights": "its start changed the weights of the base model; save it with path_initial_model_for_weight_conversion",
}


@dataclass(frozen=True)
class FoundAdapter:
    """Where an adapter is.

    Args:
        folder: Its local folder.
        name: The name of its folder, or its hub id.
        revision: Its commit on the hub; None for a local folder.
    """

    folder: Path
    name: str
    revision: str | None = None


def find_adapter(name: str) -> FoundAdapter:
    """Return where an adapter is: a folder, or a hub id, whose configuration and weights the hub's client downloads once.

    Args:
        name: A folder, ORG/NAME, or ORG/NAME@REVISION.

    Raises:
        BadInput: There is neither, or the hub cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        return FoundAdapter(folder, folder.resolve().name)
    repo, _, revision = name.partition("@")
    if folder.exists() or name.startswith((".", "/", "~")) or repo.count("/") != 1:
        raise BadInput(f"there is no folder {name}; --adapter takes {FORMS}")
    found = fetched(repo, revision or None, (CONFIG, WEIGHTS), "adapter", f"or give {FORMS}")
    return FoundAdapter(found, repo, commit_of(found))


@dataclass(frozen=True)
class PeftFolder:
    """An adapter that fits a base model.

    Args:
        tensors: The tensors of a slot.
        modules: Number of layers with factors.
        rank: Largest rank among them.
        trained_on: The base model that its configuration names; None where it names none.
    """

    tensors: dict[str, Tensor]
    modules: int
    rank: int
    trained_on: str | None


def read_peft_folder(folder: Path, base: Path) -> PeftFolder:
    """Return the LoRA adapter in a folder, for the base model in another one.

    PEFT itself decides on a model without storage which layers get factors of which rank and scale (rsLoRA, `rank_pattern` and
    `alpha_pattern` among these); factors that do not match these layers exactly are refused, not left out.

    Args:
        folder: What PEFT's `save_pretrained` wrote.
        base: Local folder of the base model.

    Raises:
        BadInput: It is no such folder, or the adapter is of another kind, of another base, or cannot be represented exactly. The
            message has the reason, and the first layers with their number.
    """
    from peft import LoraConfig

    raw = _read_config(folder)
    _refuse_kind(folder, raw)
    try:
        config = LoraConfig(**{key: raw[key] for key in APPLIED if raw.get(key) is not None})
    except (ValueError, TypeError) as error:
        raise BadInput(f"PEFT refuses the configuration in {folder / CONFIG}: {quoted(error)}") from error
    stored = _read_weights(folder)
    shapes = _expected(folder, base, config, stored)
    trained_on = raw.get("base_model_name_or_path")
    if problems := _problems(stored, shapes):
        raise BadInput(
            f"the adapter in {folder} does not fit this base model: {'; '.join(problems)}"
            + (f". It was trained on {quoted(trained_on)}" if trained_on else "")
            + ". An adapter is taken whole or not at all: give its own base model with --model"
        )
    patches = {
        module: Patch(stored[PREFIX + module + DOWN].float(), stored[PREFIX + module + UP].float(), one.scale)
        for module, one in shapes.items()
    }
    rank = max(one.down[0] for one in shapes.values())
    return PeftFolder(to_tensors(patches), len(patches), rank, str(trained_on) if trained_on else None)


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        below = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
        more = f"; it has adapters in {some(below)}: give one of these" if below else ""
        raise BadInput(f"{folder} has no {CONFIG}, so it is not a PEFT adapter{more}")
    try:
        raw = read_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / CONFIG} cannot be read ({quoted(error)}); save or copy the adapter again") from error
    if not isinstance(raw, dict):
        raise BadInput(f"{folder / CONFIG} is no configuration; save or copy the adapter again")
    return raw


def _refuse_kind(folder: Path, raw: Mapping[str, Any]) -> None:
    """Refuse an adapter whose configuration has what no slot represents."""
    from peft import LoraConfig

    if (kind := raw.get("peft_type")) != "LORA":
        raise BadInput(
            f"the adapter in {folder} is of type {quoted(kind)}; a workspace starts from type LORA. {_cap(MERGE)}"
        )
    if (task := raw.get("task_type")) not in (None, "CAUSAL_LM"):
        raise BadInput(
            f"the adapter in {folder} is for {quoted(task)}, with a head of its own; a workspace needs CAUSAL_LM"
        )
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(LoraConfig)
    }
    for key, value in sorted(raw.items()):
        if key in ("peft_type", "task_type", *APPLIED, *WITHOUT_EFFECT):
            continue
        if value in OWN_INIT if key == "init_lora_weights" else not value or value == defaults.get(key):
            continue
        why = REASONS.get(key, "perdure does not know what it changes")
        raise BadInput(
            f"the adapter in {folder} has {key}: {quoted(json.dumps(value))}, and is no plain sum with the "
            f"base model's weights: {why}. {_cap(MERGE)}"
        )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file() and (folder / PICKLE).is_file():
        raise BadInput(
            f"{folder} has its weights in {PICKLE}, a pickle, which can run any code when it is loaded, and is never loaded "
            f"here; where you trust it, load it with PEFT and write {WEIGHTS} with save_pretrained"
        )
    if not path.is_file():
        pickle = f"; of the hub {PICKLE}, a pickle, is never fetched" if commit_of(folder) else ""
        raise BadInput(f"{folder} has no {WEIGHTS}; save or copy the adapter again{pickle}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({quoted(error)}); save or copy the adapter again") from error


@dataclass(frozen=True)
class _Expected:
    """Shapes of A and B, and the scale, that PEFT gives a layer."""

    down: tuple[int, ...]
    up: tuple[int, ...]
    scale: float


def _expected(folder: Path, base: Path, config: Any, stored: Mapping[str, Tensor]) -> dict[str, _Expected]:
    """Return what PEFT gives each layer that the configuration names, by module."""
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer

    root = shell(str(base))
    known = linear_layers(root)
    try:
        with torch.device("meta"):
            model = get_peft_model(root, config, autocast_adapter_dtype=False)
    except (ValueError, TypeError, KeyError) as error:  # no layer of these names, or a configuration that PEFT refuses
        raise BadInput(
            f"the adapter in {folder} does not fit this base model: {quoted(error)}. It has factors of "
            f"{some(sorted({_module(name) for name in stored}))}"
        ) from error
    layers = {name.removeprefix(PREFIX): m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    if other := sorted(layers.keys() - known.keys()):
        raise BadInput(
            f"the adapter in {folder} adapts {some(other)}, and a workspace adapts only linear layers between embedding and "
            f"output layer. {_cap(MERGE)}"
        )
    return {
        name: _Expected(
            tuple(_weight(layer.lora_A).shape),
            tuple(_weight(layer.lora_B).shape),
            float(layer.scaling["default"]),
        )
        for name, layer in layers.items()
    }


def _weight(factors: Any) -> Tensor:
    """Return the weight of PEFT's one adapter."""
    weight: Tensor = factors["default"].weight
    return weight


def _problems(stored: Mapping[str, Tensor], shapes: Mapping[str, _Expected]) -> list[str]:
    """Return what is wrong with the factors, each in words with the first names and their number."""
    wanted = {
        PREFIX + name + end: shape for name, one in shapes.items() for end, shape in ((DOWN, one.down), (UP, one.up))
    }
    missing = [name for name in wanted if name not in stored]
    absent = {name for name in shapes if {PREFIX + name + DOWN, PREFIX + name + UP} <= set(missing)}
    half = [_short(name) for name in missing if _module(name) not in absent]
    unknown = [_short(name) for name in stored if name not in wanted]
    wrong = [
        f"{_short(name)} is {_by(stored[name].shape)} and would be {_by(shape)}"
        for name, shape in wanted.items()
        if name in stored and tuple(stored[name].shape) != shape
    ]
    bad = [
        _short(name)
        for name, value in stored.items()
        if value.dtype not in FLOATS or not math.isfinite(value.float().abs().sum().item())
    ]
    found = {
        "belong to no layer that it adapts in this model": sorted(unknown),
        "have the wrong shape": sorted(wrong),
        "are missing though their other half is there": sorted(half),
        "are not finite numbers of 16 or 32 bits": sorted(bad),
    }
    told = [f"{counted(len(names), 'tensor')} {what} ({some(names)})" for what, names in found.items() if names]
    if absent:
        told.append(
            f"{counted(len(absent), 'layer')} that its configuration names without factors ({some(sorted(absent))})"
        )
    return told


def _module(tensor: str) -> str:
    return tensor.removeprefix(PREFIX).partition(".lora_")[0]


def _short(tensor: str) -> str:
    return tensor.removeprefix(PREFIX).removesuffix(".weight")


def _by(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]
