"""A recipe from the configuration of another trainer: LLaMA-Factory's or Axolotl's YAML, and what of it has no place here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perdure.core.errors import BadSpec
from perdure.core.plain_yaml import read_yaml_file
from perdure.core.recipe import Recipe
from perdure.core.values import shown
from perdure.methods.registry import load_recipe


@dataclass(frozen=True)
class ImportedRecipe:
    """What a configuration of another trainer is here.

    Args:
        source: "LLaMA-Factory" or "Axolotl".
        recipe: The default recipe with the settings that were taken.
        settings: These settings, under perdure's names.
        init: Options of `perdure init` that say the rest of it.
        data: Its data sets by name or path, which `perdure learn` takes one by one.
        left: Keys that were not taken, with the reason.
    """

    source: str
    recipe: Recipe
    settings: Mapping[str, Any]
    init: Mapping[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, the recipe as `recipe show --json` prints it."""
        return {
            "source": self.source,
            "recipe": self.recipe.to_json(),
            "settings": dict(self.settings),
            "init": dict(self.init),
            "data": list(self.data),
            "left": dict(self.left),
        }


class _Left(Exception):
    """A key has no place here; the message says why."""


Pair = tuple[str, Any]
Rule = (
    str | Callable[[Any], Pair | None]
)  # a setting's name, or what makes a setting, an option of `init`, or nothing of a value

DEFAULT = "dual_replay"  # an imported recipe has the methods of the default one, and the adapter that it names
SAME = (
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "gradient_accumulation_steps",
    "max_steps",
    "eval_steps",
    "early_stopping_patience",
    "logging_steps",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
)
DATA = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx", ".gz", ".zip")
SILENT = "it has no effect on what is learned here"
NOT_HERE = "perdure has no such setting"


def import_recipe(path: Path) -> ImportedRecipe:
    """Return the recipe that a configuration of LLaMA-Factory or Axolotl describes.

    Raises:
        BadSpec: The file is no such configuration, asks for another kind of training (preference pairs, rewards), or a value
            has no meaning here.
    """
    if path.suffix.lower() in DATA:
        raise BadSpec(
            f"{path} is data and no configuration; give the YAML file (.yaml, .yml or .json) of LLaMA-Factory or Axolotl"
        )
    config = read_yaml_file(path, "configuration")
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise BadSpec(f"{path} is no configuration: it is not a list of `name: value`")
    if "base_model" in config:
        source, rules = "Axolotl", AXOLOTL
    elif "model_name_or_path" in config:
        source, rules = "LLaMA-Factory", LLAMA_FACTORY
    else:
        raise BadSpec(
            f"{path} is a configuration of neither LLaMA-Factory (it would have model_name_or_path) nor Axolotl (base_model)"
        )
    _refuse_other_training(path, config)
    settings: dict[str, Any] = {}
    init: dict[str, str] = {}
    data: list[str] = []
    left: dict[str, str] = {}
    for key, value in config.items():
        if value is None or value == "" or key in LOSSES[source]:
            continue
        try:
            rule = rules.get(key)
            if rule is None:
                raise _Left(NOT_HERE)
            pair = (rule, value) if isinstance(rule, str) else rule(value)
        except _Left as why:
            left[key] = str(why)
            continue
        if pair is None:
            continue
        name, taken = pair
        if name == "data":
            data += taken
        elif name.startswith("--"):
            init[name] = str(taken)
        else:
            settings[name] = taken
    named = LOSSES[source]
    settings |= _token_weights({key: config[key] for key in config if key in named}, left)
    if settings.get("max_steps", 0) > 0:
        settings.pop("num_train_epochs", None)
    try:
        recipe = load_recipe(DEFAULT, settings)
    except BadSpec as error:
        raise BadSpec(f"{path}: {error}") from None
    return ImportedRecipe(source, recipe, settings, init, tuple(data), left)


def _token_weights(config: Mapping[str, Any], left: dict[str, str]) -> dict[str, Any]:
    """Return the settings of `token_weight` and of the anchor to the base model that a configuration's loss asks for.

    Args:
        config: The keys of `LOSSES` that it has.
        left: Keys that were not taken, with the reason; added to.
    """
    on = {key for key, value in config.items() if value is True}
    settings: dict[str, Any] = {}
    for key, scheme in (
        ("use_dft_loss", "dft"),
        ("use_asft_loss", "dft"),
        ("use_eaft_loss", "eaft"),
        ("use_eaft", "eaft"),
    ):
        if key in on:
            settings["methods.token_weight.scheme"] = scheme
    if settings.get("methods.token_weight.scheme") == "eaft" and "eaft_alpha" in config:
        settings["methods.token_weight.exponent"] = config["eaft_alpha"]
    if "use_asft_loss" in on:
        settings |= {"methods.lwf.teacher": "base", "methods.lwf.temperature": 1.0}
        settings["methods.lwf.strength"] = config.get("asft_alpha", 0.1)
    if "use_eaft" in on and config.get("eaft_k", 20) != 20:
        left["eaft_k"] = "the entropy is that of the 20 largest logits"
    return settings


def _refuse_other_training(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is no supervised fine-tuning."""
    for key in ("stage", "rl"):
        if (kind := config.get(key)) not in (None, False, "sft", "pt"):
            raise BadSpec(
                f"{path}: {key} is {shown(kind)}; perdure learns from completions (sft), not from preferences or rewards"
            )


def _epochs(value: Any) -> Pair:
    whole = float(value) if isinstance(value, int | float) else 0.0
    if whole < 1 or whole != int(whole):
        raise _Left(f"{shown(value)} epochs are not a whole number; set max_steps")
    return "num_train_epochs", int(whole)


def _modules(value: Any) -> Pair:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    return "lora_target_modules", "all-linear" if names in (["all"], ["all-linear"]) else names


def _when(wanted: Any, name: str, taken: Any) -> Callable[[Any], Pair | None]:
    """Return a rule that takes something where a value is the wanted one, and nothing where it is off."""

    def rule(value: Any) -> Pair | None:
        if value in (False, "false", "no", "none"):
            return None
        if value != wanted and wanted is not None:
            raise _Left(f"{shown(value)} has no counterpart here")
        return name, taken

    return rule


def _bits(value: Any) -> Pair:
    kinds = {4: "nf4", 8: "int8"}
    if value not in kinds:
        raise _Left(f"{shown(value)} bits are not supported; 4 and 8 are")
    return "--quantization", kinds[value]


def _share(value: Any) -> Pair | None:
    """Return the share of rows for validation; a number of rows, or none, has no place."""
    if not value:
        return None
    if not isinstance(value, float) or not 0 < value < 0.5:
        raise _Left(
            "validation_share is a share of the train rows, from 0 to 0.5; name a validation file in the task file otherwise"
        )
    return "validation_share", value


def _train(value: Any) -> Pair:
    kinds = {"lora": "lora", "qlora": "lora", "full": "full"}
    if value not in kinds:
        raise BadSpec(
            f"{shown(value)} is no way of training here; perdure trains a LoRA adapter or every weight (full)"
        )
    return "train", kinds[value]


def _datasets(value: Any) -> Pair:
    """Return the data sets that either trainer names: one text with commas, or a list of names or of objects with a path."""
    listed = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    names = [one.get("path") or one.get("name") if isinstance(one, dict) else one for one in listed]
    return "data", [str(name).strip() for name in names if name]


def _attention(value: Any) -> Pair | None:
    kinds = {
        "fa2": "flash_attention_2",
        "flash_attention_2": "flash_attention_2",
        "sdpa": "sdpa",
        "eager": "eager",
        "disabled": "eager",
    }
    if value in ("auto", False):
        return None
    if value is True:
        return "--attn-implementation", "flash_attention_2"
    if value not in kinds:
        raise _Left(f"{shown(value)} is no attention of transformers")
    return "--attn-implementation", kinds[value]


def _because(why: str) -> Callable[[Any], Pair | None]:
    def rule(value: Any) -> Pair | None:
        if value in (False, 0):
            return None
        raise _Left(why)

    return rule


LOSSES = {  # keys of the loss, by trainer
    "LLaMA-Factory": ("use_dft_loss", "use_eaft_loss", "eaft_alpha", "use_asft_loss", "asft_alpha"),
    "Axolotl": ("use_eaft", "eaft_alpha", "eaft_k"),
}
COMMON: dict[str, Rule] = {
    **{name: name for name in SAME},
    "warmup_steps": "warmup_steps",
    "warmup_ratio": "warmup_steps",  # below 1 it is a share of all updates
    "bf16": _when(None, "--dtype", "bfloat16"),
    "fp16": _when(True, "--dtype", "float16"),
    "seed": lambda value: ("--seed", value),
    "gradient_checkpointing": _when(True, "gradient_checkpointing", True),
    "report_to": "report_to",
    "optim": "optim",
    "lr_scheduler_kwargs": "lr_scheduler_kwargs",
    "output_dir": _because("a workspace stores what is learned"),
    "deepspeed": _because("one process trains"),
    "fsdp": _because("one process trains"),
    "neftune_noise_alpha": _because(NOT_HERE),
    "save_steps": _because("checkpoints are written about once a minute"),
}
LLAMA_FACTORY: dict[str, Rule] = {
    **COMMON,
    "model_name_or_path": lambda value: ("--model", value),
    "stage": lambda value: None,
    "do_train": lambda value: None,
    "finetuning_type": _train,
    "lora_rank": "lora_r",
    "lora_target": _modules,
    "cutoff_len": "max_length",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "num_train_epochs": _epochs,
    "lr_scheduler_type": "lr_scheduler_type",
    "packing": "packing",
    "disable_gradient_checkpointing": lambda value: None if value else ("gradient_checkpointing", True),
    "quantization_bit": _bits,
    "flash_attn": _attention,
    "val_size": _share,
    "dataset": _datasets,
    "template": _because("the model's own chat template is used; --template or the task file changes it"),
    "overwrite_cache": _because(SILENT),
    "overwrite_output_dir": _because(SILENT),
    "preprocessing_num_workers": _because(SILENT),
    "plot_loss": _because("perdure report draws the curves"),
    "train_on_prompt": _when(True, "train_on", "all"),
    "use_rslora": "use_rslora",
    "use_dora": _because("DoRA's weights are not a sum of low-rank adapters, which tasks are kept apart by"),
}
AXOLOTL: dict[str, Rule] = {
    **COMMON,
    "base_model": lambda value: ("--model", value),
    "adapter": _train,
    "lora_target_modules": _modules,
    "lora_target_linear": _when(True, "lora_target_modules", "all-linear"),
    "sequence_len": "max_length",
    "micro_batch_size": "per_device_train_batch_size",
    "num_epochs": _epochs,
    "lr_scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "sample_packing": "packing",
    "load_in_4bit": _when(True, "--quantization", "nf4"),
    "load_in_8bit": _when(True, "--quantization", "int8"),
    "attn_implementation": _attention,
    "flash_attention": _attention,
    "val_set_size": _share,
    "datasets": _datasets,
    "chat_template": _because("the model's own chat template is used; --template or the task file changes it"),
    "dataset_prepared_path": _because(SILENT),
    "train_on_inputs": _when(True, "train_on", "all"),
    "peft_use_rslora": "use_rslora",
    "peft_use_dora": _because("DoRA's weights are not a sum of low-rank adapters, which tasks are kept apart by"),
}
