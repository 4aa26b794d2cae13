"""Operations on the cache of a prefix: take some rows, copy it so that the copy can grow, and move keys after padding."""

import copy
from typing import Any

import torch
from torch import Tensor


def growing_copy(past: Any) -> Any:
    """Return a cache that shares the tensors of `past` but grows separately (a dynamic cache grows by concatenation)."""
    if past is None:
        return None
    fresh = copy.copy(past)
    fresh.layers = [copy.copy(layer) for layer in past.layers]
    return fresh


def cache_rows(past: Any, rows: Tensor) -> Any:
    """Return the cache of some rows; `past` is not changed."""
    chosen = growing_copy(past)
    for layer in chosen.layers if chosen is not None else ():
        if layer.is_initialized:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
    return chosen


def spread_over_rows(past: Any, columns: int, moves: Tensor) -> None:
    """Turn the cache of one prefix into the first `columns` columns of left-padded rows that all begin with it.

    In a row with padding the prefix starts further to the right, so its keys and values are moved. Tokens that leave the columns
    on the right must run again with the rest of the row.

    Args:
        past: The cache of one row; it is changed.
        columns: Length of the prefix.
        moves: Padding of each row (rows,).
    """
    for layer in past.layers:
        if layer.is_initialized:  # a layer that uses the keys of another layer has none
            place = (torch.arange(columns) - moves[:, None]).clamp(min=0).to(layer.keys.device)  # (rows, columns)
            layer.keys = layer.keys[0][:, place].transpose(0, 1)
            layer.values = layer.values[0][:, place].transpose(0, 1)
