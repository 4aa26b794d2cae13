"""Rows of a training script's dataset, tokenised or text, as the rows perdure trains on."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from perdure.bridges.trainer_tokens import encoded
from perdure.core.errors import BadInput
from perdure.data.columns import IN_FILE, check, read_by, take
from perdure.data.encode import conversation_of, encode
from perdure.data.examine import examine
from perdure.data.formats import detect, to_rows
from perdure.data.read import Record
from perdure.data.tables import class_names, named
from perdure.data.turns import unread_fields
from perdure.memory.file import TokenRow


def rows_of(
    dataset: Any,
    tokenizer: Any,
    *,
    task: str,
    stage: int,
    max_length: int,
    name: str = "train_dataset",
    train_on: str = "completion",
) -> list[TokenRow]:
    """Return the rows of a dataset, in order.

    Args:
        dataset: Mappings, in a list or a `datasets.Dataset` or anything with a length and an index. Either tokenised
            (`input_ids`, and `labels` with -100 where nothing is trained or the masks of TRL's `SFTTrainer`, `completion_mask`
            and `assistant_masks`; perhaps `attention_mask`, or `seq_lengths` where rows are packed), or text in any format
            that a data file may have (prompt and completion, messages, ...). A column `label` names the class.
        tokenizer: Tokenizer; needed for text alone.
        task: Name of the task.
        stage: Its number in the stream.
        max_length: Tokens a text row is cut to; tokenised rows stay as they are.
        name: What to call the dataset in errors.
        train_on: What of a text row is trained; see `data.encode.encode`.

    Raises:
        BadInput: There are no rows, a row has nothing to train, a column cannot be used, or text came without a tokenizer.
    """
    if isinstance(dataset, Mapping) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        what = "several datasets by name" if isinstance(dataset, Mapping) else f"a {type(dataset).__name__}"
        raise BadInput(f"{name} is {what}; give one list of rows, or a dataset with a length and an index")
    fields = [dataset[i] for i in range(len(dataset))]
    if not fields:
        raise BadInput(f"{name} has no rows; there is nothing to learn")
    if "input_ids" in fields[0]:
        return [TokenRow(row, task, _label(label), stage) for row, label in encoded(fields, name)]
    if tokenizer is None:
        raise BadInput(f"{name} holds text; give processing_class=tokenizer, or rows with input_ids and labels")
    rows = to_rows(*_read(dataset, fields, name), task=task)
    written = cache(conversation_of)
    for text in examine(rows, tokenizer, written):
        warnings.warn(f"{name}: {text}", stacklevel=2)
    return [
        TokenRow(encode(row, tokenizer, max_length, written(row, tokenizer), train_on), task, row.label, stage)
        for row in rows
    ]


def _read(dataset: Any, fields: Sequence[Mapping[str, Any]], name: str) -> tuple[list[Record], str]:
    """Return the rows of a text dataset as records, classes by their names, and their format; warn of columns not read."""
    features: Any = getattr(dataset, "features", None)
    classes = class_names(features.to_dict() if hasattr(features, "to_dict") else None)
    rows = [Record(named(dict(row), classes, f"{name}[{i}]"), f"{name}[{i}]") for i, row in enumerate(fields)]
    records, notices = take(rows, {}, name)
    format = detect(records)
    chat = isinstance(records[0].fields.get("completion"), list)
    unread = check(records, format, read_by(format, None, (), chat=chat), how=IN_FILE)
    for text in (*notices, *unread.notices, *unread_fields(records)):
        warnings.warn(text, stacklevel=2)
    return records, format


def _label(value: Any) -> str | None:
    return None if value is None else str(value)
