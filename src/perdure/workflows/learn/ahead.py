"""What would end a learn after its model was loaded, and can be known before."""

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput, BadSpec, PerdureError
from perdure.core.recipe import Recipe, Settings
from perdure.data.task import TaskData
from perdure.ledger import Entry

if TYPE_CHECKING:
    from perdure.bridges.sizes import Shape
    from perdure.core.rows import Row
    from perdure.data.encode import Encoded
    from perdure.workflows.workspace import Workspace

MOST = 10**8  # rows times epochs: what the order of the rows takes is gigabytes from there
KEPT = 16  # bytes a trained number: its weight twice, as it is trained and as it is recorded, and AdamW's two moments


def check_recipe(ws: "Workspace", parent: Entry, recipe: Recipe) -> None:
    """Refuse a recipe that this workspace cannot carry out, from the model's configuration and what head has learned.

    Raises:
        BadSpec: A tracker is unknown or not installed, `max_length` or `lora_r` is more than the model has, `lora_target_modules`
            names what it does not have, or head goes on training an adapter of another rank, scale or modules.
    """
    from perdure.bridges.models import positions
    from perdure.bridges.sizes import shape_of, targets
    from perdure.bridges.targets import ALL
    from perdure.bridges.trackers import refuse_missing

    settings = recipe.settings
    refuse_missing(settings.trackers)
    limit = positions(ws.base_folder)
    if limit is not None and settings.max_length > limit and settings.max_length != _default("max_length"):
        raise BadSpec(f"max_length is {settings.max_length}, and the model has {limit} positions; lower it")
    width = shape_of(ws.base_folder).width
    if settings.train == "lora" and width is not None and settings.lora_r > width:
        raise BadSpec(
            f"lora_r is {settings.lora_r}, and no layer of this model has a rank above its width of {width}; lower it"
        )
    layers = None  # all of them, as by default
    if settings.train == "lora" and settings.lora_target_modules != ALL:
        layers = targets(ws.base_folder, settings)
    if settings.start == "head":
        _check_adapter(ws, parent, settings, layers)


def check_sizes(ws: "Workspace", recipe: Recipe, rows: "Sequence[Encoded]") -> None:
    """Refuse what no machine, or not this one, can hold, by what it takes at least.

    Raises:
        BadSpec: There are too many epochs for so many rows, or a batch takes more memory than there is.
        PerdureError: The disk has no room for the checkpoint and the result.
    """
    from perdure.bridges.sizes import memory_bytes, shape_of, weight_bytes

    settings, shape = recipe.settings, shape_of(ws.base_folder)
    if len(rows) * settings.num_train_epochs > MOST:
        raise BadSpec(
            f"num_train_epochs is {settings.num_train_epochs:,}, and {len(rows):,} rows as often are more than {MOST:,}; lower it"
        )
    batch = min(settings.per_device_train_batch_size, len(rows)) / len(rows)
    needed, there = batch * _activations(rows, shape), memory_bytes()
    if needed > there:
        raise BadSpec(
            f"per_device_train_batch_size is {settings.per_device_train_batch_size:,}: such a batch takes {needed / 1e9:.0f} GB "
            f"at least, and there are {there / 1e9:.0f} GB; lower it, gradient_accumulation_steps makes up for it"
        )
    trained = 2 * weight_bytes(ws.base_folder) / KEPT  # of float32 weights; of bfloat16 ones there are twice as many
    if settings.train == "lora":
        trained = 8 * settings.lora_r * (shape.width or 0) * (shape.layers or 0)  # four modules of a block, at least
    free = shutil.disk_usage(ws.ledger.root).free
    if trained * KEPT > free:
        raise PerdureError(
            f"a checkpoint and the result take {trained * KEPT / 1e6:,.0f} MB at least, and the disk of {ws.ledger.root} has "
            f"{free / 1e6:,.0f} MB free; free some space"
        )


def encode_all(
    ws: "Workspace", task: TaskData, general: "Sequence[Row]", max_length: int
) -> "tuple[tuple[Encoded, ...], list[str]]":
    """Return the train rows as tokens, and what is to be told of how the model's tokenizer and template take the rows.

    Every row is tried that is trained on, scored, or rehearsed.

    Raises:
        BadInput: A row cannot be written in the model's template, has nothing to train, or a token that the model has no
            embedding for; the message names it.
    """
    from perdure.bridges.models import load_tokenizer
    from perdure.bridges.sizes import shape_of
    from perdure.data.encode import answer_ids, encode, prompt_ids
    from perdure.data.examine import examine

    tokenizer = load_tokenizer(ws.base_folder)
    rows = tuple(encode(row, tokenizer, max_length) for row in task.train)
    known = shape_of(ws.base_folder).vocabulary
    for row, encoded in zip(task.train, rows, strict=True):
        _refuse_outside(row, encoded.ids, tokenizer, known)
    for row in (*task.validation, *general):
        _refuse_outside(row, encode(row, tokenizer, max_length).ids, tokenizer, known)
    for row in task.test:
        answer_ids(row, tokenizer)
        _refuse_outside(row, prompt_ids(row, tokenizer), tokenizer, known)
    notices = examine((*task.train, *task.validation, *task.test), tokenizer)
    return rows, [*notices, *(f"general rows: {text}" for text in examine(general, tokenizer))]


def _refuse_outside(row: "Row", ids: Sequence[int], tokenizer: Any, known: int | None) -> None:
    """Refuse a row with a token of the tokenizer that the model has no embedding for."""
    from perdure.bridges.base_checks import without_embedding

    if known is not None and (highest := max(ids, default=0)) >= known:
        raise BadInput(f"{row.source or 'a row'}: {without_embedding(tokenizer, highest, known)}")


def _check_adapter(ws: "Workspace", parent: Entry, settings: Settings, layers: list[str] | None) -> None:
    """Refuse to go on with an adapter that is not the one that head has, as `Runtime` would once it is loaded."""
    slot = ws.ledger.slots(parent).get("skill")
    if slot is None:
        return
    if settings.train == "full":
        raise BadSpec(
            "the recipe trains every weight, but head already carries an adapter; begin a new workspace for it, or use a LoRA "
            "recipe"
        )
    from perdure.maths.low_rank import from_tensors  # here, as reading loads no torch

    patches = from_tensors(ws.ledger.objects.get(slot))
    patch = next(iter(patches.values()))
    rank, alpha = patch.down.shape[0], patch.down.shape[0] * patch.scale
    names = {module.split(".")[-1] for module in patches}
    others = layers is not None and set(layers) != set(patches)
    if rank != settings.lora_r or abs(alpha - settings.lora_alpha) > 1e-6 * alpha or others:
        raise BadSpec(
            "the recipe's LoRA rank, scale or modules differ from the adapter that head goes on training "
            f"({len(patches)} modules named {', '.join(sorted(names))}, rank {rank}, lora_alpha {alpha:g}); keep lora_r, "
            "lora_alpha and lora_target_modules as they were, or start from the base with start: base"
        )


def _activations(rows: "Sequence[Encoded]", shape: "Shape") -> float:
    """Return the bytes that one forward of all rows holds for its backward, at least: logits, and what enters each block."""
    labels, tokens = sum(row.targets for row in rows), sum(map(len, rows))
    return 2.0 * (labels * (shape.vocabulary or 0) + tokens * (shape.width or 0) * (shape.layers or 0))


def _default(name: str) -> object:
    return Settings.model_fields[name].default
