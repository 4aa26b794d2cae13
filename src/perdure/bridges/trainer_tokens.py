"""Rows that a training script tokenised itself, or that TRL's `SFTTrainer` prepared, as the rows perdure trains on."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from perdure.core.errors import BadInput
from perdure.data.encode import Encoded

IGNORED = -100  # label of a token that is not trained, as in transformers
MASKS = ("completion_mask", "assistant_masks")  # 1 where a token is trained; of SFTTrainer, beside input_ids
DOCUMENTS = "seq_lengths"  # lengths of the documents that SFTTrainer packed into one row
NOT_READ = {  # columns that would change what the model reads, and so are never ignored
    "inputs_embeds": "a row is made of tokens",
    "position_ids": "the positions of a row are counted from 0; give one document a row",
    "pixel_values": "rows are text alone",
    "images": "rows are text alone",
    "image": "rows are text alone",
    "input_features": "rows are text alone",
}


def encoded(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[Encoded, Any]]:
    """Return the rows of a tokenised dataset without their padding, each with its `label`; a packed row as its documents.

    Args:
        rows: Mappings with `input_ids` and either `labels` or masks (see `trainer_rows.rows_of`).
        name: What to call the dataset in errors.

    Raises:
        BadInput: A column is missing or cannot be used, or a row has nothing to train.
    """
    refused = sorted(column for column in NOT_READ if any(row.get(column) is not None for row in rows))
    if refused:
        raise BadInput(f"{name} has the columns {', '.join(refused)} ({NOT_READ[refused[0]]}); remove them")
    made = [(row, fields.get("label")) for i, fields in enumerate(rows) for row in _documents(fields, f"{name}[{i}]")]
    if len(made) != len(rows) or DOCUMENTS in rows[0]:
        warnings.warn(
            f"{name} is packed: its {len(rows)} rows hold {len(made)} documents, each a row here that sees itself alone; "
            "per_device_train_batch_size counts documents",
            stacklevel=2,
        )
    return made


def _documents(fields: Mapping[str, Any], source: str) -> list[Encoded]:
    """Return the documents of one row: the row itself, unless it is packed.

    A document without a label (packing may cut a prompt from its answer) trains nothing, and is dropped.
    """
    row = _row(fields, source)
    lengths = [len(row)] if fields.get(DOCUMENTS) is None else _numbers(fields[DOCUMENTS])
    if sum(lengths) != len(row):
        raise BadInput(f"{source}: seq_lengths add up to {sum(lengths)} tokens, and the row has {len(row)}")
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    parts = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    documents = [Encoded(row.ids[part], row.trained[part]) for part in parts]
    trained = [document for document in documents if document.targets]
    if not trained:
        raise BadInput(f"{source}: nothing to train, every label is {IGNORED} (or every mask 0); check the labels")
    return trained


def _row(fields: Mapping[str, Any], source: str) -> Encoded:
    """Return one tokenised row without its padding."""
    ids, labels = _numbers(fields["input_ids"]), _labels(fields, source)
    mask = [1] * len(ids) if fields.get("attention_mask") is None else _numbers(fields["attention_mask"])
    if not len(ids) == len(labels) == len(mask):
        raise BadInput(
            f"{source}: input_ids, labels and attention_mask have {len(ids)}, {len(labels)}, {len(mask)} tokens"
        )
    tokens = [(i, label) for i, label, real in zip(ids, labels, mask, strict=True) if real]
    wrong = next((t for t, (i, label) in enumerate(tokens) if label not in (i, IGNORED)), None)
    if wrong is not None:
        raise BadInput(
            f"{source}: the label of token {wrong} is neither that token nor {IGNORED}; do not shift labels, the model does"
        )
    return Encoded(tuple(i for i, _ in tokens), tuple(label != IGNORED for _, label in tokens))


def _labels(fields: Mapping[str, Any], source: str) -> Sequence[int]:
    """Return the labels of a row, or what SFTTrainer makes of its masks: a token is trained where every mask is 1."""
    if fields.get("labels") is not None:
        return _numbers(fields["labels"])
    masks = {name: _numbers(fields[name]) for name in MASKS if fields.get(name) is not None}
    if not masks:
        others = ", ".join(sorted(set(fields) - {"input_ids"})) or "nothing else"
        raise BadInput(
            f"{source} has input_ids but no labels (it has {others}); add labels, a copy of input_ids with {IGNORED} where "
            f"nothing is trained, or one of the masks {' and '.join(MASKS)}"
        )
    ids = _numbers(fields["input_ids"])
    for name, mask in masks.items():
        if len(mask) != len(ids):
            raise BadInput(f"{source}: input_ids and {name} have {len(ids)} and {len(mask)} tokens")
    return [i if all(bits) else IGNORED for i, *bits in zip(ids, *masks.values(), strict=True)]


def _numbers(values: Any) -> Sequence[int]:
    return values.tolist() if isinstance(values, torch.Tensor) else [int(value) for value in values]
