"""Rows of tokens as padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.data.encode import Encoded

PACKING_WORTH = 0.9  # rows are packed if this leaves at most this share of the padded tokens, since masks cost time too
SHARED_PREFIX_WORTH = 32  # a prefix is shared if this saves at least so many tokens: it costs one extra short forward


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
    """Return the number of leading tokens that all rows share, at most `most`."""
    ids = [tuple(row[: max(most, 0)]) for row in rows]
    first, last = min(ids), max(ids)
    length = min(len(first), len(last))
    return next((t for t in range(length) if first[t] != last[t]), length)


@dataclass(frozen=True)
class Packing:
    """The places of rows that follow each other in the lines of a tensor, so that there is little padding.

    Args:
        row: Number of the row that each token is of (lines, width), -1 for padding.
        position: Position of each token in its row, after the shared prefix (lines, width).
        at: Line and column (2, tokens) of the hidden state from which each label is predicted.
    """

    row: Tensor
    position: Tensor
    at: Tensor

    def sees(self, shared: int) -> Tensor:
        """Return which tokens each token attends to (lines, 1, width, shared + width): the prefix, and its own row up to itself.

        Args:
            shared: Tokens of the prefix.
        """
        lines, width = self.row.shape
        own = (self.row[:, :, None] == self.row[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
        return torch.cat([own.new_ones(lines, width, shared), own], dim=2)[:, None]


@dataclass(frozen=True)
class Batch:
    """Rows as one padded tensor, with the positions at which labels are predicted.

    Args:
        prefix: Token ids (prefix,) that every row begins with, run once for all of them; may be empty.
        ids: Token ids (rows, width) after the prefix, padded on the right; (lines, width) where rows are packed.
        mask: 1 for real tokens, of the shape of `ids`.
        at: Row and position (2, tokens) of the hidden state from which each label is predicted.
        labels: The tokens to predict (tokens,).
        packing: Where the rows are in `ids`; None where each has a line of its own.
    """

    prefix: Tensor
    ids: Tensor
    mask: Tensor
    at: Tensor
    labels: Tensor
    packing: Packing | None = None

    @property
    def padded_tokens(self) -> int:
        """Number of tokens that the model computes, padding included."""
        return self.ids.numel() + self.prefix.numel()


def collate(rows: Sequence[Encoded], pad: int, *, share_prefix: bool = True, packing: bool = False) -> Batch:
    """Return the padded batch of `rows`; the prefix common to all rows is separate where that saves work.

    A row ends where its last label is predicted: no label depends on the tokens after it, such as the end of a turn.

    Args:
        rows: The rows.
        pad: Token id for padding.
        share_prefix: Whether a common prefix may be separate.
        packing: Whether short rows may share a line, where that saves a tenth of the tokens.
    """
    shared = prefix_to_share(rows) if share_prefix else 0
    texts = [row.ids[shared : row.last] for row in rows]
    lines = lines_of(list(map(len, texts))) if packing else [[n] for n in range(len(rows))]
    ids, mask = padded([[token for n in line for token in texts[n]] for line in lines], pad)
    labels = [
        (i, t - 1 - shared, row.ids[t]) for i, row in enumerate(rows) for t in range(1, len(row)) if row.trained[t]
    ]
    row_of, position, label = torch.tensor(labels, dtype=torch.long).reshape(-1, 3).T
    prefix = torch.tensor(rows[0].ids[:shared], dtype=torch.long)
    packed = packing_of(lines, texts, row_of, position) if len(lines) < len(rows) else None
    return Batch(prefix, ids, mask, torch.stack([row_of, position]), label.contiguous(), packed)


def padded_tokens(rows: Sequence[Encoded], *, share_prefix: bool = True, packing: bool = False) -> int:
    """Return the number of tokens that a forward over `collate(rows)` computes, padding included."""
    shared = prefix_to_share(rows) if share_prefix else 0
    lengths = [row.last - shared for row in rows]
    return shared + (len(lines_of(lengths)) if packing else len(rows)) * max(lengths)


def lines_of(lengths: Sequence[int]) -> list[list[int]]:
    """Return the rows of each line, packed by first-fit decreasing; a line is as long as the longest row.

    Each row has a separate line where packing saves less than a tenth of the tokens.
    """
    width = max(lengths)
    lines: list[list[int]] = []
    room: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        line = next((i for i, free in enumerate(room) if free >= lengths[n]), len(lines))
        if line == len(lines):
            lines.append([])
            room.append(width)
        lines[line].append(n)
        room[line] -= lengths[n]
    return lines if len(lines) <= PACKING_WORTH * len(lengths) else [[n] for n in range(len(lengths))]


def packing_of(
    lines: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], row_of: Tensor, position: Tensor
) -> Packing:
    """Return where the tokens and labels of packed rows are.

    Args:
        lines: Rows of each line.
        texts: Tokens of each row, after the shared prefix.
        row_of: Row of each label (tokens,).
        position: Position of its hidden state in the row (tokens,).
    """
    width = max(sum(len(texts[n]) for n in line) for line in lines)
    row, place = torch.full((len(lines), width), -1), torch.zeros(len(lines), width, dtype=torch.long)
    line_of, start_of = torch.zeros(len(texts), dtype=torch.long), torch.zeros(len(texts), dtype=torch.long)
    for number, line in enumerate(lines):
        start = 0
        for n in line:
            end = start + len(texts[n])
            row[number, start:end], place[number, start:end] = n, torch.arange(end - start)
            line_of[n], start_of[n], start = number, start, end
    return Packing(row, place, torch.stack([line_of[row_of], start_of[row_of] + position]))


def prefix_to_share(rows: Sequence[Encoded]) -> int:
    """Return the number of leading tokens that run once for all rows; 0 where that saves little.

    Each row retains the position that predicts its first label.
    """
    shared = common_prefix([row.ids for row in rows], min(row.first for row in rows) - 1)
    return shared if shared * (len(rows) - 1) >= SHARED_PREFIX_WORTH else 0
