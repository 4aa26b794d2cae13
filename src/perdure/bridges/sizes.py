"""How many numbers a recipe trains on a model: from the model's configuration alone, no weight is read."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perdure.bridges.embedded import NAME
from perdure.bridges.models import choose_device, find_model
from perdure.core.errors import BadInput, BadSpec
from perdure.core.recipe import Settings


class Size(NamedTuple):
    """Parameters of a model, and how many of them (or of its adapter) are trained."""

    parameters: int
    trainable: int


class Shape(NamedTuple):
    """What the configuration of a model says of its size; None where it does not."""

    width: int | None
    layers: int | None
    vocabulary: int | None


def shape_of(folder: Path) -> Shape:
    """Return the shape of the model in a local folder.

    Raises:
        BadInput: Its configuration cannot be read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"cannot read the configuration of the model in {folder}: {error}") from error
    found = [getattr(config, name, None) for name in ("hidden_size", "num_hidden_layers", "vocab_size")]
    return Shape(*(value if isinstance(value, int) else None for value in found))


def weight_bytes(folder: Path) -> int:
    """Return the bytes of the weights in a local folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def memory_bytes() -> int:
    """Return the memory of the device that models are loaded on: the accelerator's, else the machine's."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(choose_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def sizes(model: str, settings: Settings, revision: str | None = None) -> Size:
    """Return the size of `model` and of what `settings` train on it. Of a hub model, only the configuration is fetched.

    Args:
        model: Local folder, hub id, or the embedded model's name.
        settings: LoRA's rank and modules, or `train: full`.
        revision: Revision of a hub model.

    Raises:
        BadInput: There is no such model, or it is not known to transformers.
        BadSpec: `lora_target_modules` matches nothing.
    """
    shell = _shell(model, revision)
    parameters = sum(value.numel() for value in shell.parameters())
    if settings.train == "full":
        return Size(parameters, parameters)
    shapes = [tuple(module.weight.shape) for module in _adapted(shell, settings.lora_target_modules)]
    if not shapes:
        raise BadSpec(f"lora_target_modules {settings.lora_target_modules!r} matches no linear layer of {model}")
    return Size(parameters, sum(settings.lora_r * (rows + columns) for rows, columns in shapes))


def _shell(model: str, revision: str | None) -> Any:
    """Return the model without storage for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    local = model == NAME or Path(model).is_dir() or model.startswith((".", "/", "~"))
    try:
        where = find_model(model) if local else model
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"cannot read the configuration of model {model!r}: {error}") from error


def _adapted(shell: Any, wanted: str | list[str]) -> list[Any]:
    """Return the layers that get an adapter: what `Runtime.start_adapter` does, which a test keeps equal."""
    from transformers.pytorch_utils import Conv1D

    output = shell.get_output_embeddings()
    names = [wanted] if isinstance(wanted, str) else wanted
    return [
        module
        for name, module in shell.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not output
        and (wanted == "all-linear" or name.split(".")[-1] in names)
    ]
