"""What would end a learn after its model was loaded, and can be known before."""

import shutil
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput, BadSpec, PerdureError
from perdure.core.optimizers import PLAIN_SCHEDULES
from perdure.core.recipe import Recipe
from perdure.core.settings import Settings
from perdure.core.slots import DENSE, INITIAL, is_dense, view_of
from perdure.data.task import TaskData
from perdure.ledger import Entry
from perdure.workflows.learn.adapter import planned_adapter, usable_slots
from perdure.workflows.learn.encoder import RowEncoder
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.bridges.sizes import Shape
    from perdure.core.rows import Row
    from perdure.data.encode import Encoded

MOST = 10**8  # rows times epochs: what the order of the rows takes is gigabytes from there
KEPT = 16  # bytes a trained number: its weight twice, as it is trained and as it is recorded, and AdamW's two moments


def check_recipe(session: Session, parent: Entry, recipe: Recipe, task: str) -> None:
    """Refuse a recipe that this workspace cannot carry out, from the model's configuration and what head has learned.

    Raises:
        BadSpec: A tracker is unknown or not installed, `max_length` or `lora_r` is more than the model has, `lora_target_modules`
            names what it does not have, its blocks cannot be checkpointed, head goes on training an adapter of another rank,
            scale or modules, or a method measures the base model and head has other weights.
    """
    from perdure.bridges.attention import refuse_every_weight
    from perdure.bridges.models import positions
    from perdure.bridges.quantization import every_weight_of_quantized
    from perdure.bridges.sizes import refuse_checkpointing, shape_of, targets
    from perdure.bridges.targets import ALL
    from perdure.bridges.trackers import refuse_missing

    settings = recipe.settings
    refuse_missing(settings.trackers)
    limit = positions(session.base_folder)
    if limit is not None and settings.max_length > limit and settings.max_length != _default("max_length"):
        raise BadSpec(f"max_length is {settings.max_length}, and the model has {limit} positions; lower it")
    if not recipe.trains:
        return
    if settings.train == "full" and (kind := session.ledger.config.get("quantization")):
        raise BadSpec(every_weight_of_quantized(kind))
    if settings.train == "full":
        refuse_every_weight(session.ledger.config.get("attn_implementation"))
    width = shape_of(session.base_folder).width
    if settings.train == "lora" and width is not None and settings.lora_r > width:
        raise BadSpec(
            f"lora_r is {settings.lora_r}, and no layer of this model has a rank above its width of {width}; lower it"
        )
    if settings.gradient_checkpointing:
        refuse_checkpointing(session.base_folder)
    _check_optimizer(session, settings)
    measuring = [method.name for method in recipe.methods if method.slot]
    if measuring and any(map(is_dense, session.ledger.slots(parent))):
        raise BadSpec(
            f"{measuring[0]} measures the base model, and head has weights that replace all of it (train: full); drop "
            f"{measuring[0]}, or begin a new workspace"
        )
    layers = None  # all of them, as by default
    if settings.train == "lora" and settings.lora_target_modules != ALL:
        layers = targets(session.base_folder, settings)
    if settings.start == "head":  # what is begun anew fits
        _check_adapter(session, parent, recipe, task, layers)


def _check_optimizer(session: Session, settings: Settings) -> None:
    """Try an optimizer and a schedule of transformers on the device; the usual ones need no check."""
    if settings.to_json().keys().isdisjoint(("optim", "optim_args", "lr_scheduler_kwargs")) and (
        settings.lr_scheduler_type in PLAIN_SCHEDULES
    ):
        return
    from perdure.bridges.models import choose_device
    from perdure.bridges.optimizers import check

    check(settings, choose_device(session.device))


def untrained(session: Session, parent: Entry, recipe: Recipe) -> list[str]:
    """Return a notice of the weights that have no adapter; nothing where these are few.

    The workspace of a mixture may have been made, or the adapter that head goes on training begun, before experts got one.
    """
    notice, known = session.capabilities.get("no_adapter"), session.capabilities.get("experts")
    if recipe.settings.train != "lora" or not (notice or known):
        return []
    slot = session.ledger.slots(parent).get("skill") if recipe.settings.start == "head" else None
    if slot or known is None:
        from perdure.bridges.sizes import left_without
        from perdure.maths.low_rank import from_tensors

        has = from_tensors(session.ledger.objects.get(slot)) if slot else None
        notice = left_without(session.base_folder, recipe.settings, has)
    return [notice] if notice else []


def check_sizes(session: Session, recipe: Recipe, rows: "Sequence[Encoded]") -> None:
    """Refuse what no machine, or not this one, can hold, by what it takes at least.

    Raises:
        BadSpec: There are too many epochs for so many rows, or a batch takes more memory than there is.
        PerdureError: The disk has no room for the checkpoint and the result.
    """
    from perdure.bridges.sizes import memory_bytes, shape_of, weight_bytes

    settings, shape = recipe.settings, shape_of(session.base_folder)
    if not recipe.trains:  # short forwards of a few rows, and an object of a megabyte
        return
    if len(rows) * (epochs := settings.epochs(len(rows))) > MOST:
        name = "max_steps" if settings.max_steps > 0 else "num_train_epochs"
        times = f", which is {epochs:,} epochs" if settings.max_steps > 0 else ""
        raise BadSpec(
            f"{name} is {getattr(settings, name):,}{times}, and {len(rows):,} rows as often are more than {MOST:,}; lower it"
        )
    batch = min(settings.per_device_train_batch_size, len(rows)) / len(rows)
    needed, there = batch * _activations(rows, shape), memory_bytes(session.device)
    if needed > there:
        raise BadSpec(
            f"per_device_train_batch_size is {settings.per_device_train_batch_size:,}: such a batch takes {needed / 1e9:.0f} GB "
            f"at least, and there are {there / 1e9:.0f} GB; lower it, gradient_accumulation_steps makes up for it"
        )
    trained = (
        2 * weight_bytes(session.base_folder) / KEPT
    )  # of float32 weights; of bfloat16 ones there are twice as many
    if settings.train == "lora":
        trained = 8 * settings.lora_r * (shape.width or 0) * (shape.layers or 0)  # four modules of a block, at least
    free = shutil.disk_usage(session.ledger.root).free
    if trained * KEPT > free:
        raise PerdureError(
            f"a checkpoint and the result take {trained * KEPT / 1e6:,.0f} MB at least, and the disk of {session.ledger.root} "
            f"has {free / 1e6:,.0f} MB free; free some space"
        )


def must_recompute(session: Session, recipe: Recipe, rows: "Sequence[Encoded]") -> str | None:
    """Return a notice where the activations of a batch do not fit into the memory, so that blocks compute them again.

    The recipe stays as it is, and the entry's id with it: the update is the same up to rounding.
    """
    from perdure.bridges.sizes import activation_bytes, can_checkpoint, memory_bytes, weight_bytes

    settings = recipe.settings
    if settings.gradient_checkpointing or settings.train != "lora":
        return None
    longest = sorted((row.last for row in rows), reverse=True)[: settings.per_device_train_batch_size]
    needed = activation_bytes(session.base_folder, len(longest) * max(longest, default=0))
    there = memory_bytes(session.device) - weight_bytes(session.base_folder)
    if needed <= there or not can_checkpoint(session.base_folder):
        return None
    return (
        f"a batch stores about {needed / 1e9:.0f} GB for its backward, and there are {max(there, 0) / 1e9:.0f} GB next to the "
        "weights: gradient checkpointing is on for this learn, which takes some 1.4 times as long; a smaller "
        "per_device_train_batch_size (gradient_accumulation_steps makes up for it) or max_length avoids it"
    )


def check_rows(session: Session, task: TaskData, general: "Sequence[Row]", encoder: RowEncoder) -> list[str]:
    """Try every row that is trained on, scored, or rehearsed; return notices of how tokenizer and template take the rows.

    Raises:
        BadInput: A row cannot be written in the model's template, has nothing to train, or a token that the model has no
            embedding for; the message names it.
    """
    from perdure.bridges.sizes import shape_of
    from perdure.data.encode import answer_ids, conversation_of
    from perdure.data.examine import examine

    tokenizer, known = encoder.tokenizer, shape_of(session.base_folder).vocabulary
    rows = (*task.train, *task.validation, *general)
    written = cache(
        conversation_of
    )  # until the rows are checked; the template takes longer over a row than the tokenizer
    for row in task.train:
        encoder(row, written(row, tokenizer))
    for row in rows:
        _refuse_outside(row, encoder(row, written(row, tokenizer)).ids, tokenizer, known)
    for row in task.test:
        answer_ids(row, tokenizer, written(row, tokenizer))
    for row, ids in zip(task.test, session.tasks.prompts(task, tokenizer, written), strict=True):
        _refuse_outside(row, ids, tokenizer, known)
    notices = examine((*task.train, *task.validation, *task.test), tokenizer, written)
    return [*notices, *(f"general rows: {text}" for text in examine(general, tokenizer, written))]


def check_teachers(session: Session, recipe: Recipe) -> None:
    """Refuse a recipe whose methods ask a model that cannot be had, before anything is trained.

    Raises:
        BadInput: No such model, or one with another tokenizer.
        BadSpec: The base is to teach while every weight of it is trained.
    """
    from perdure.bridges.models import find_model, load_tokenizer
    from perdure.bridges.teacher import refuse_other_tokenizer

    columns = [column for of in ("new", "replay", "general") for column in recipe.columns(of)]
    if recipe.settings.train == "full" and any(c.teacher == "base" and c.of != "general" for c in columns):
        raise BadSpec(
            "a method asks the base model, but this recipe trains its weights; use a LoRA recipe or another teacher"
        )
    for teacher in sorted({column.teacher for column in columns} - {"start", "settled", "base"}):
        refuse_other_tokenizer(teacher, load_tokenizer(find_model(teacher)), load_tokenizer(session.base_folder))


def _refuse_outside(row: "Row", ids: Sequence[int], tokenizer: Any, known: int | None) -> None:
    """Refuse a row with a token of the tokenizer that the model has no embedding for."""
    from perdure.bridges.base_checks import without_embedding

    if known is not None and (highest := max(ids, default=0)) >= known:
        raise BadInput(f"{row.source or 'a row'}: {without_embedding(tokenizer, highest, known)}")


def _check_adapter(session: Session, parent: Entry, recipe: Recipe, task: str, layers: list[str] | None) -> None:
    """Refuse to go on with an adapter that is not the one that head has, as `Runtime` would once it is loaded."""
    slots, settings = usable_slots(session.ledger.slots(parent), recipe, task), recipe.settings
    adapter = planned_adapter(slots, recipe, task, session.seed)
    if adapter is None:
        if view_of(slots).keys() <= {DENSE}:
            return
        if INITIAL in slots:
            raise BadSpec(
                "the recipe trains every weight, and this workspace starts from an adapter, which is no part of them; 'perdure "
                "export DIR --merged --at base' writes the model with it, for which a workspace can be made, or use a LoRA recipe"
            )
        raise BadSpec(
            "the recipe trains every weight, but head already carries an adapter; begin a new workspace for it ('perdure export "
            "DIR --merged' writes head as a model to begin with), or use a LoRA recipe"
        )
    slot = slots.get(adapter.slot)
    if slot is None:
        return
    from perdure.maths.low_rank import from_tensors  # here, as reading loads no torch

    patches = from_tensors(session.ledger.objects.get(slot))
    patch = next(iter(patches.values()))
    rank, scale, wanted = patch.rank, patch.scale, settings.lora_scale
    names = {module.split(".")[-1] for module in patches}
    others = layers is not None and set(layers) != set(patches)
    if rank != settings.lora_r or abs(scale - wanted) > 1e-6 * scale or others:
        raise BadSpec(
            "the recipe's LoRA rank, scale or modules differ from the adapter that head goes on training "
            f"({len(patches)} modules named {', '.join(sorted(names))}, rank {rank}, lora_alpha {rank * scale:g}); keep lora_r, "
            "lora_alpha, use_rslora and lora_target_modules as they were, or start from the base with start: base"
        )


def _activations(rows: "Sequence[Encoded]", shape: "Shape") -> float:
    """Return the bytes that one forward of all rows holds for its backward, at least: logits, and what enters each block."""
    labels, tokens = sum(row.targets for row in rows), sum(map(len, rows))
    return 2.0 * (labels * (shape.vocabulary or 0) + tokens * (shape.width or 0) * (shape.layers or 0))


def _default(name: str) -> object:
    return Settings.model_fields[name].default
