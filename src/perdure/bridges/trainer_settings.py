"""What the arguments of a training script mean to a recipe: honoured, or refused by name with the reason."""

from collections.abc import Mapping
from dataclasses import fields, replace
from math import ceil
from typing import Any

from transformers import SchedulerType, TrainingArguments
from transformers.training_args import OptimizerNames

from perdure.bridges.trackers import refuse_missing
from perdure.core.errors import BadSpec
from perdure.core.recipe import Recipe, build_recipe, without_conflicts
from perdure.core.settings import REJECTED, Settings

TAKEN = (  # settings of the recipe
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "weight_decay",
    "warmup_steps",
    "label_smoothing_factor",
    "max_steps",
)
CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")  # its names in transformers, old and new
READ = (  # what settings_of makes settings of, and what ContinualTrainer itself goes by
    *("num_train_epochs", "lr_scheduler_type", "lr_scheduler_kwargs", "optim", "optim_args", "bf16", "tf32", "use_cpu"),
    *CHECKPOINTING,
    *("per_device_eval_batch_size", "prediction_loss_only", "save_only_model", "do_train", "do_eval", "do_predict"),
)
PASSED = (  # what Trainer does with them is right here too
    *("output_dir", "seed", "full_determinism", "disable_tqdm", "skip_memory_metrics", "include_num_input_tokens_seen"),
    *("logging_strategy", "logging_steps", "logging_first_step", "log_level", "log_level_replica", "log_on_each_node"),
    *("report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start"),
    *("save_strategy", "save_steps", "save_total_limit"),
)
HONOURED = (*TAKEN, *READ, *PASSED)
REENTRANT = "methods go back through one forward several times, which takes use_reentrant: False, for every block"
REASONS = {  # by the beginning of a name, the longest that fits
    "": "it has no part in how a recipe trains",
    "adam_": "AdamW has its usual betas and epsilon",
    "optim": "the optimizers that need it cannot be used with a recipe",
    "average_tokens": "one process trains",
    "ddp_": "one process trains",
    "fsdp": "one process trains",
    "deepspeed": "one process trains",
    "parallelism": "one process trains",
    "local_rank": "one process trains",
    "accelerator_config": "one process trains, and it takes the rows in its own order",
    "fp16": "it trains and evaluates in float32 or bf16",
    "bf16_full_eval": "it evaluates in the precision that it trains in",
    "activation_checkpointing_kwargs": REENTRANT,
    "gradient_checkpointing_kwargs": REENTRANT,
    "torch_compile": "the forward is not one that can be compiled",
    "torch_empty_cache": "memory is not given back between updates",
    "use_liger": "logits are made at label positions only",
    "liger_": "logits are made at label positions only",
    "use_cache": "no cache is used in training",
    "neftune": "noise on the embeddings is the method `adversarial`",
    "auto_find_batch_size": "a batch that does not fit is an error; lower per_device_train_batch_size",
    "logging_nan_inf_filter": "a loss that is not finite is an error",
    "eval_": "evaluate gives the loss alone",
    "include_for_metrics": "evaluate gives the loss alone",
    "batch_eval_metrics": "evaluate gives the loss alone",
    "load_best_model_at_end": "the recipe's `keep: best` does that",
    "metric_for_best_model": "the recipe's `keep: best` goes by the loss on eval_dataset",
    "greater_is_better": "the recipe's `keep: best` goes by the loss on eval_dataset",
    "save_on_each_node": "one process trains",
    "enable_jit_checkpoint": "a stopped run goes on from `state`",
    "restore_callback_states": "a stopped run goes on from `state`",
    "resume_from_checkpoint": "a stopped run goes on from `state`",
    "ignore_data_skip": "a stopped run goes on from `state`",
    "push_to_hub": "upload what save_model writes",
    "hub_": "upload what save_model writes",
    "data_seed": "the order of the rows comes from seed",
    "train_sampling_strategy": "the order of the rows comes from seed",
    "dataloader_": "rows are tokenised once and stay in memory",
    "remove_unused_columns": "rows are read by the names of their columns",
    "label_names": "rows are read by the names of their columns",
    "length_column_name": "rows are read by the names of their columns",
    "debug": "a loss that is not finite is an error",
}
FROM_MODEL = (
    "train",
    "start",
    "host",
    "lora_r",
    "lora_alpha",
    "use_rslora",
    "lora_dropout",
    "lora_target_modules",
    "validation_share",
)
INIT = {  # arguments of Trainer.__init__
    "data_collator": "give rows with input_ids and labels, or text",
    "model_init": "give the model itself",
    "compute_loss_func": "a loss of yours is a method: see docs/how-to/add-a-method.md",
    "compute_metrics": "evaluate gives the loss; score the model with your own code after train()",
    "preprocess_logits_for_metrics": "evaluate gives the loss; score the model with your own code after train()",
    "optimizers": "the optimizer and its schedule are made from args, by optim and lr_scheduler_type",
    "optimizer_cls_and_kwargs": "the optimizer is made from args, by optim and optim_args",
}
METHODS = {  # methods of Trainer
    "predict": "generate with the model, or call evaluate(rows) for the loss",
    "hyperparameter_search": "make a new ContinualTrainer with a new model for each trial",
    "push_to_hub": "call save_model(), and upload the folder",
    "create_model_card": "Trainer's card would describe another training; `perdure export` writes one",
    "init_hf_repo": "call save_model(), and upload the folder",
    "get_eval_dataloader": "evaluate takes the rows themselves",
    "get_test_dataloader": "evaluate takes the rows themselves",
    "evaluation_loop": "evaluate takes the rows themselves",
    "prediction_step": "evaluate takes the rows themselves",
}


def refuse_init(given: Mapping[str, Any]) -> None:
    """Refuse what `Trainer.__init__` takes and a recipe has no use for.

    Raises:
        BadSpec: One is given.
        TypeError: It is no argument of Trainer's either.
    """
    for name, value in given.items():
        if name not in INIT:
            raise TypeError(f"ContinualTrainer.__init__() got an unexpected keyword argument {name!r}")
        if value is not None and not (isinstance(value, tuple) and all(part is None for part in value)):
            raise BadSpec(f"ContinualTrainer takes no {name}: {INIT[name]}")


def refuse_adapters(model: Any) -> None:
    """Refuse a model with a PEFT adapter of a kind that recipes do not train.

    Raises:
        BadSpec: With the name of the option of LoraConfig, and what to use.
    """
    for config in getattr(model, "peft_config", {}).values():
        for name in ("use_dora", "modules_to_save", "trainable_token_indices"):
            if getattr(config, name, None):
                raise BadSpec(f"LoraConfig.{name} is not supported: {REJECTED[name]}")


def refuse_slots(recipe: Recipe) -> None:
    """Refuse a recipe with a method that stores what it measures in the slots of an entry, which a trainer does not have.

    Raises:
        BadSpec: With the method's name.
    """
    measuring = [method.name for method in recipe.methods if method.slot]
    if measuring:
        raise BadSpec(
            f"{measuring[0]} stores what it measures in a workspace, and ContinualTrainer has none; drop it, or use perdure learn"
        )


def with_settings(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    """Return the recipe with other training settings, checked as in a recipe file.

    Raises:
        BadSpec: A setting is out of its range.
        Conflict: A method excludes a setting.
    """
    spec = {"name": recipe.name, **recipe.settings.model_dump(), **settings}
    return without_conflicts(replace(recipe, settings=build_recipe(spec, {}).settings))


def overruled(recipe: Recipe, used: Settings) -> list[str]:
    """Return the settings of a recipe that the arguments or the model override."""
    of_recipe = {name: getattr(recipe.settings, name) for name in Settings.model_fields}
    overridden = []
    for name, value in of_recipe.items():
        if value == Settings.model_fields[name].default:
            continue
        if name in FROM_MODEL:
            overridden.append(f"{name} {value!r} (that of the model is used)")
        elif value != getattr(used, name):
            overridden.append(f"{name} {value!r} (args have {getattr(used, name)!r})")
    return overridden


def settings_of(args: TrainingArguments, rows: int) -> dict[str, Any]:
    """Return the recipe settings that `args` name, for `rows` new rows.

    Raises:
        BadSpec: One of them cannot be honoured here; none is ever ignored.
    """
    _refuse(args)
    epochs = args.num_train_epochs
    if args.max_steps > 0:
        batches = ceil(rows / args.per_device_train_batch_size)
        epochs = ceil(args.max_steps / ceil(batches / args.gradient_accumulation_steps))
    if epochs != int(epochs):
        raise BadSpec(f"num_train_epochs is {epochs}; epochs are whole here, so round it or give max_steps")
    schedule, optim = SchedulerType(args.lr_scheduler_type).value, OptimizerNames(args.optim).value
    settings = {name: getattr(args, name) for name in TAKEN}
    settings |= {
        "gradient_checkpointing": any(getattr(args, name, None) for name in CHECKPOINTING),
        "num_train_epochs": int(epochs),
        "lr_scheduler_type": {"constant_with_warmup": "constant"}.get(schedule, schedule),
        "lr_scheduler_kwargs": args.lr_scheduler_kwargs or {},
        "optim": "adamw_torch" if optim == "adamw_torch_fused" else optim,  # which is Trainer's default
        "optim_args": args.optim_args or "",
        "report_to": ",".join(args.report_to or []) or "none",
        "host": "transformers",
    }
    if args.logging_steps >= 1:
        settings["logging_steps"] = int(args.logging_steps)
    return settings


def _refuse(args: TrainingArguments) -> None:
    """Refuse every argument that is not honoured and not at its default, whatever this version of transformers has."""
    foreign = {field.name for field in fields(args)} - {field.name for field in fields(TrainingArguments)}
    if foreign:
        raise BadSpec(
            f"args is a {type(args).__name__}, whose {', '.join(sorted(foreign)[:3])}, ... are settings of another trainer "
            "(those of SFTConfig were used when SFTTrainer prepared the rows); give TrainingArguments, and name the rates, "
            "batch sizes and epochs in it"
        )
    usual = TrainingArguments(output_dir=args.output_dir, use_cpu=args.use_cpu)
    names = [field.name for field in fields(args)]
    plain = {f"{name}_kwargs": {"use_reentrant": False} for name in CHECKPOINTING}
    refused = [
        n for n in names if n not in HONOURED and getattr(args, n) not in (getattr(usual, n, None), plain.get(n))
    ]
    wrong = {
        "save_strategy": args.save_strategy == "best",
        "include_num_input_tokens_seen": args.include_num_input_tokens_seen not in (False, "no", "non_padding"),
    }
    reasons = REASONS | {
        "save_strategy": "best is what the recipe's `keep: best` does; no, steps and epoch are taken",
        "include_num_input_tokens_seen": "padding is not counted; no and non_padding are taken",
    }
    refused += [name for name, is_wrong in wrong.items() if is_wrong]
    if refused:
        why = reasons[max((start for start in reasons if refused[0].startswith(start)), key=len)]
        raise BadSpec(
            f"TrainingArguments.{', '.join(refused)} cannot be honoured by ContinualTrainer ({why}); leave it at its default"
        )
    refuse_missing(args.report_to or [])
