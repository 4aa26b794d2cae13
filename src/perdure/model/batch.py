"""From encoded rows to padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.data.encode import Encoded

SHARED_PREFIX_WORTH = 32  # tokens saved below which a shared prefix costs more than it saves (one extra short forward)


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
    """Return the padded batch of `rows`; the prefix common to all rows is kept apart where that saves work.

    A row ends where its last label is predicted: no label depends on what stands behind, as the end of a turn.
    """
    shared = kept_apart(rows) if share_prefix else 0
    ends = [row.last for row in rows]
    width = max(ends) - shared
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    at, labels = [], []
    for i, (row, end) in enumerate(zip(rows, ends, strict=True)):
        ids[i, : end - shared] = torch.tensor(row.ids[shared:end])
        mask[i, : end - shared] = 1
        for t in range(1, len(row)):
            if row.trained[t]:
                at.append((i, t - 1 - shared))
                labels.append(row.ids[t])
    prefix = torch.tensor(rows[0].ids[:shared], dtype=torch.long)
    return Batch(prefix, ids, mask, torch.tensor(at, dtype=torch.long).T.contiguous(), torch.tensor(labels))


def padded_tokens(rows: Sequence[Encoded], *, share_prefix: bool = True) -> int:
    """Return the tokens that a forward over `rows` computes, padding included; those of their `collate`."""
    shared = kept_apart(rows) if share_prefix else 0
    return shared + len(rows) * (max(row.last for row in rows) - shared)


def kept_apart(rows: Sequence[Encoded]) -> int:
    """Return how many leading tokens of all rows run once for all, 0 where that saves little."""
    shared = common_prefix(rows)
    return shared if shared * (len(rows) - 1) >= SHARED_PREFIX_WORTH else 0


def common_prefix(rows: Sequence[Encoded]) -> int:
    """Return how many leading tokens all rows share, leaving each row the position that predicts its first label."""
    limit = min(row.first - 1 for row in rows)
    first, last = min(row.ids[:limit] for row in rows), max(row.ids[:limit] for row in rows)
    return next((t for t in range(len(first)) if first[t] != last[t]), min(len(first), limit))
