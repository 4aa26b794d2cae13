"""How much of a model a recipe trains, and what it leaves: from the model's configuration alone, no weight is read."""

import os
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perdure.bridges.base_files import read_config
from perdure.bridges.embedded import NAME
from perdure.bridges.models import choose_device, configuration, find_model, in_words
from perdure.bridges.targets import adaptable, chosen, without_adapter
from perdure.core.errors import BadSpec
from perdure.core.settings import Settings


class Size(NamedTuple):
    """Parameters of a model, and how many of them (or of its adapter) are trained."""

    parameters: int
    trainable: int


class Shape(NamedTuple):
    """The size of a model by its configuration; None where that does not have it."""

    width: int | None
    layers: int | None
    vocabulary: int | None


def shape_of(folder: Path) -> Shape:
    """Return the shape of the model in a local folder.

    Raises:
        BadInput: Its configuration cannot be read.
    """
    config = configuration(folder).get_text_config()
    values = [getattr(config, name, None) for name in ("hidden_size", "num_hidden_layers", "vocab_size")]
    return Shape(*(value if isinstance(value, int) else None for value in values))


def activation_bytes(folder: Path, tokens: int) -> float:
    """Return about how many bytes the blocks of a model store for the backward of a forward over some tokens, with LoRA.

    Per token and block, in 16 bits: 17 times the width, 8.6 times the width of the MLP, 4.6 times that of keys and values. These
    were fitted to what torch saves for Llama blocks under autocast; other kinds of block differ. 0 where the configuration has no
    such sizes.
    """
    config = configuration(folder).get_text_config()
    width, layers = getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
    if not isinstance(width, int) or not isinstance(layers, int):
        return 0.0
    inner = getattr(config, "intermediate_size", None)
    heads, groups = (getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    keys = width * groups / heads if isinstance(heads, int) and isinstance(groups, int) else width
    return tokens * layers * (17 * width + 8.6 * (inner if isinstance(inner, int) else 4 * width) + 4.6 * keys)


def weight_bytes(folder: Path) -> int:
    """Return the bytes of the weights in a local folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def memory_bytes(device: str = "auto") -> int:
    """Return the memory of the device that models are loaded on: a GPU's own, else the machine's."""
    if (place := choose_device(device)).type == "cuda":
        return int(torch.cuda.get_device_properties(place).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def sizes(model: str, settings: Settings, revision: str | None = None) -> Size:
    """Return the size of `model` and of what `settings` train on it. Of a hub model, only the configuration is fetched.

    Args:
        model: Local folder, hub id, or the embedded model's name.
        settings: LoRA's rank and modules, `train: full` or `train: none`.
        revision: Revision of a hub model.

    Raises:
        BadInput: There is no such model, or it is not known to transformers.
        BadSpec: `lora_target_modules` names what cannot get an adapter; see `targets.chosen`.
    """
    made = shell(model, revision)
    parameters = sum(value.numel() for value in made.parameters())
    if settings.train == "full":
        return Size(parameters, parameters)
    if settings.train == "none":
        return Size(parameters, 0)
    known = adaptable(made)
    shapes = [known[name].shape for name in chosen(made, settings.lora_target_modules)]
    return Size(parameters, sum(settings.lora_r * prod(shape[:-2]) * sum(shape[-2:]) for shape in shapes))


LARGE = 10**9  # weights; the default learning rate was chosen on models below


def untuned_rate(folder: Path, settings: Settings) -> str | None:
    """Return a notice where the default learning rate is used on a larger model than it was measured on; no weight is read.

    The rates proposed are those of QLoRA (Dettmers et al. 2023, arXiv 2305.14314), 2e-4 up to 13B and 1e-4 above, and for
    training of every weight the usual 1e-5.
    """
    usual = type(settings).model_fields["learning_rate"].default
    if settings.learning_rate != usual or settings.train == "none":
        return None
    count = sum(value.numel() for value in shell(str(folder)).parameters())
    if count <= LARGE:
        return None
    rate = "1e-5" if settings.train == "full" else "2e-4" if count <= 13 * LARGE else "1e-4"
    return (
        f"the default learning_rate {usual:g} was measured on a model of 135 million weights, and this one has "
        f"{count / LARGE:.1f} billion: try learning_rate {rate}, and compare the validation loss (eval_steps) of a few rates"
    )


def targets(folder: Path, settings: Settings) -> list[str]:
    """Return the names of the layers of the model in a local folder that get an adapter; no weight is read.

    Raises:
        BadSpec: A name in `lora_target_modules` means none; see `targets.chosen`.
    """
    return chosen(shell(str(folder)), settings.lora_target_modules)


def left_without(folder: Path, settings: Settings, names: Collection[str] | None) -> str | None:
    """Return a notice of the weights in a local folder that get no adapter although the settings want one; no weight is read.

    Args:
        folder: Of the model.
        settings: With what gets an adapter.
        names: What has one; None for all that can.
    """
    made = shell(str(folder))
    if names is not None:
        names = {*names, *(adaptable(made).keys() - set(chosen(made, settings.lora_target_modules)))}
    return without_adapter(made, names)


def refuse_checkpointing(folder: Path) -> None:
    """Refuse gradient checkpointing for a model in a local folder that has no block for it; no weight is read.

    Raises:
        BadSpec: It has none.
    """
    made = shell(str(folder))
    if not has_checkpoints(made):
        raise BadSpec(
            f"transformers has no gradient checkpointing for {type(made).__name__}; set gradient_checkpointing: false, and lower "
            "max_length or per_device_train_batch_size where memory is short"
        )


def can_checkpoint(folder: Path) -> bool:
    """Return whether transformers can checkpoint blocks of the model in a local folder; no weight is read."""
    return has_checkpoints(shell(str(folder)))


def has_checkpoints(model: Any) -> bool:
    """Return whether transformers can checkpoint blocks of a model."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return any(isinstance(module, GradientCheckpointingLayer) for module in model.modules())


def shell(model: str, revision: str | None = None) -> Any:
    """Return the model without storage for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    local = model == NAME or Path(model).is_dir() or model.startswith((".", "/", "~"))
    with in_words(f"cannot read the configuration of model {model!r}"), torch.device("meta"):
        where: Path | str = model
        if local:
            read_config(where := find_model(model))  # names the line of a damaged file, and what to do
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
