"""Stored teacher distributions as flat tensors, one block for all rows of a manifest."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from perdure.core.step import TopK

Columns = dict[str, dict[str, TopK]]  # column name -> row key -> distribution


def pack(columns: Columns, keys: Sequence[str]) -> dict[str, Tensor]:
    """Return `columns` of the rows `keys` as named tensors, in the order of `keys`; a row without the column has length 0.

    Per column: `<name>.index` (tokens, k) int32, `<name>.logprob` (tokens, k) and `<name>.tail` (tokens,) in float16,
    `<name>.total` (tokens,) float32, and `<name>.length` (rows,) int32. Rows with different k are narrowed to the smallest.
    """
    tensors: dict[str, Tensor] = {}
    for name, by_row in sorted(columns.items()):
        present = [by_row[key] for key in keys if key in by_row]
        if not present:
            continue
        k = min(top.index.shape[1] for top in present)
        present = [top.narrowed(k) for top in present]
        tensors[f"{name}.index"] = torch.cat([top.index.int().cpu() for top in present])
        tensors[f"{name}.logprob"] = torch.cat([top.logprob.half().cpu() for top in present])
        tensors[f"{name}.tail"] = torch.cat([top.tail.half().cpu() for top in present])
        tensors[f"{name}.total"] = torch.cat([top.total.float().cpu() for top in present])
        lengths = [len(by_row[key].tail) if key in by_row else 0 for key in keys]
        tensors[f"{name}.length"] = torch.tensor(lengths, dtype=torch.int32)
    return tensors


def unpack(tensors: Mapping[str, Tensor], keys: Sequence[str]) -> Columns:
    """Return the columns that `pack` wrote for the rows `keys`."""
    columns: Columns = {}
    for name in sorted({key.rsplit(".", 1)[0] for key in tensors}):
        lengths = tensors[f"{name}.length"].tolist()
        parts = [tensors[f"{name}.{part}"].split(lengths) for part in ("index", "logprob", "tail", "total")]
        columns[name] = {key: TopK(*row) for key, length, *row in zip(keys, lengths, *parts, strict=True) if length}
    return columns
