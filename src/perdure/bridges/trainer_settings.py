"""What the arguments of a training script mean to a recipe: honoured, or refused by name."""

from dataclasses import replace
from math import ceil
from typing import Any

from transformers import SchedulerType, TrainingArguments

from perdure.core.errors import BadSpec
from perdure.core.recipe import Recipe, build_recipe

TAKEN = (
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "weight_decay",
    "warmup_steps",
    "label_smoothing_factor",
)
UNTOUCHED = ("adam_beta1", "adam_beta2", "adam_epsilon", "data_seed", "train_sampling_strategy")
REFUSED = (
    *(
        "fp16",
        "gradient_checkpointing",
        "torch_compile",
        "auto_find_batch_size",
        "deepspeed",
        "fsdp",
        "parallelism_config",
    ),
    *(
        "dataloader_drop_last",
        "use_liger_kernel",
        "neftune_noise_alpha",
        "optim_args",
        "optim_target_modules",
        "lr_scheduler_kwargs",
        "load_best_model_at_end",
    ),
)


def with_settings(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    """Return the recipe with other training settings, checked as in a recipe file."""
    spec = {"name": recipe.name, **recipe.settings.model_dump(), **settings}
    return replace(recipe, settings=build_recipe(spec, {}).settings)


def settings_of(args: TrainingArguments, rows: int) -> dict[str, Any]:
    """Return the recipe settings that `args` name, for `rows` new rows.

    Raises:
        BadSpec: One of them cannot be honoured here; none is ever ignored that would change the weights.
    """
    asked = [name for name in REFUSED if getattr(args, name, None) not in (None, False, "", [], {})]
    asked += [name for name in UNTOUCHED if getattr(args, name) != _default(name)]
    if args.eval_strategy != "no":
        asked.append("eval_strategy")
    if args.optim not in ("adamw_torch", "adamw_torch_fused"):
        asked.append("optim")
    if asked:
        raise BadSpec(f"TrainingArguments.{asked[0]} cannot be honoured by ContinualTrainer; leave it at its default")
    epochs = args.num_train_epochs
    if args.max_steps > 0:
        batches = ceil(rows / args.per_device_train_batch_size)
        epochs = ceil(args.max_steps / ceil(batches / args.gradient_accumulation_steps))
    if epochs != int(epochs):
        raise BadSpec(f"num_train_epochs is {epochs}; epochs are whole here, so round it or give max_steps")
    settings = {name: getattr(args, name) for name in TAKEN}
    settings |= {
        "num_train_epochs": int(epochs),
        "lr_scheduler_type": SchedulerType(args.lr_scheduler_type).value.removesuffix("_with_warmup"),
        "report_to": ",".join(args.report_to or []) or "none",
    }
    if args.logging_steps >= 1:
        settings["logging_steps"] = int(args.logging_steps)
    return settings


def _default(name: str) -> Any:
    return TrainingArguments.__dataclass_fields__[name].default
