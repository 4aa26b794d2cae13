"""From rows of tokens to padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.data.encode import Encoded

SHARED_PREFIX_WORTH = 32  # tokens saved below which a shared prefix costs more than it saves (one extra short forward)


def padded(
    rows: Sequence[Sequence[int]], pad: int, *, left: bool = False, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return ids and mask (rows, width), padded on the right or on the left.

    Args:
        rows: Token ids of each row.
        pad: Token id for padding.
        left: Pad on the left.
        width: Tokens of each padded row; those of the longest row unless given.
    """
    width = max(map(len, rows)) if width is None else width
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for n, row in enumerate(rows):
        columns = slice(width - len(row), width) if left else slice(len(row))
        ids[n, columns] = torch.tensor(row, dtype=torch.long)
        mask[n, columns] = 1
    return ids, mask


def common_prefix(rows: Sequence[Sequence[int]], most: int) -> int:
    """Return how many leading tokens all rows share, `most` at most."""
    ids = [tuple(row[: max(most, 0)]) for row in rows]
    first, last = min(ids), max(ids)
    length = min(len(first), len(last))
    return next((t for t in range(length) if first[t] != last[t]), length)


@dataclass(frozen=True)
class Batch:
    """Rows as one padded tensor, and where in it a token is predicted.

    Args:
        prefix: Token ids (prefix,) that every row begins with, run once for all of them; may be empty.
        ids: Token ids (rows, width) after the prefix, padded on the right.
        mask: 1 for real tokens (rows, width).
        at: Row and position (2, tokens) of the hidden state from which each label is predicted.
        labels: The tokens to predict (tokens,).
    """

    prefix: Tensor
    ids: Tensor
    mask: Tensor
    at: Tensor
    labels: Tensor

    @property
    def padded_tokens(self) -> int:
        """Tokens the model computes, padding included."""
        return self.ids.numel() + self.prefix.numel()


def collate(rows: Sequence[Encoded], pad: int, *, share_prefix: bool = True) -> Batch:
    """Return the padded batch of `rows`; the prefix common to all rows is separate where that saves work.

    A row ends where its last label is predicted: no label depends on the tokens after it, such as the end of a turn.
    """
    shared = prefix_to_share(rows) if share_prefix else 0
    ids, mask = padded([row.ids[shared : row.last] for row in rows], pad)
    labels = [
        (i, t - 1 - shared, row.ids[t]) for i, row in enumerate(rows) for t in range(1, len(row)) if row.trained[t]
    ]
    row_of, position, label = torch.tensor(labels, dtype=torch.long).reshape(-1, 3).T
    prefix = torch.tensor(rows[0].ids[:shared], dtype=torch.long)
    return Batch(prefix, ids, mask, torch.stack([row_of, position]), label.contiguous())


def padded_tokens(rows: Sequence[Encoded], *, share_prefix: bool = True) -> int:
    """Return the tokens that a forward over `rows` computes, padding included; those of their `collate`."""
    shared = prefix_to_share(rows) if share_prefix else 0
    return shared + len(rows) * (max(row.last for row in rows) - shared)


def prefix_to_share(rows: Sequence[Encoded]) -> int:
    """Return how many leading tokens of all rows run once for all, 0 where that saves little.

    Each row retains the position that predicts its first label.
    """
    shared = common_prefix([row.ids for row in rows], min(row.first for row in rows) - 1)
    return shared if shared * (len(rows) - 1) >= SHARED_PREFIX_WORTH else 0
