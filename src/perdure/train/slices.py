"""Slices of one forward's outputs for methods, with the stored columns of the rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from perdure.core.step import Slice, TopK, row_weights
from perdure.memory.pool import Pool
from perdure.model.forward import Output
from perdure.train.draws import DrawName, DrawnPart, MicroBatch


def cut(
    micro: MicroBatch, batch: Any, out: Output, pools: Mapping[str, Pool], parts: Sequence[DrawnPart]
) -> tuple[Slice, dict[str, Slice]]:
    """Return the new rows' slice, and each part of the draws by its name.

    Args:
        micro: The rows, in the order they were collated.
        batch: Their batch, with the row and position of each label and the labels.
        out: The outputs at its label positions.
        pools: Memory by pool name.
        parts: The rows that methods read of the draws.
    """
    device = out.logits.device
    row_of, labels = batch.at[0].to(device), batch.labels.to(device)
    fresh = row_of < len(micro.new)
    weight = torch.full_like(labels[fresh], 1 / max(micro.new_tokens, 1), dtype=torch.float32)
    places = torch.tensor(micro.new, device=device)[row_of[fresh]] if micro.new else row_of[fresh]
    new = Slice(out.logits[fresh], labels[fresh], weight, out.hidden[fresh], places, torch.zeros_like(places))
    by_draw: dict[DrawName, Slice] = {}
    first = len(micro.new)
    for draw in sorted(micro.drawn):
        rows = micro.drawn[draw]
        mine = (row_of >= first) & (row_of < first + len(rows))
        if rows:
            pool = pools[draw.pool]
            local = row_of[mine] - first
            columns, covered = aligned(pool.rows, pool.columns.keys(), pool.column, rows, device)
            place = torch.tensor(rows, device=device)
            task = torch.tensor([pool.task_numbers[i] for i in rows], device=device)
            by_draw[draw] = Slice(
                out.logits[mine],
                labels[mine],
                row_weights(local, micro.drawn_rows[draw]).to(device),
                out.hidden[mine],
                place[local],
                task[local],
                columns,
                covered,
            )
        first += len(rows)
    return new, {part.name: by_draw[part.draw] for part in parts if part.draw in by_draw}


def with_columns(
    new: Slice, columns: Mapping[str, Sequence[TopK]], rows: Sequence[Any], chosen: Sequence[int]
) -> Slice:
    """Return the new rows' slice with the columns that teachers wrote before the task."""
    stored, covered = aligned(rows, columns.keys(), lambda name, i: columns[name][i], chosen, new.logits.device)
    return replace(new, columns=stored, covered=covered)


def aligned(
    rows: Sequence[Any],
    names: Iterable[str],
    column: Callable[[str, int], TopK | None],
    chosen: Sequence[int],
    device: torch.device,
) -> tuple[dict[str, TopK], dict[str, Tensor]]:
    """Align the stored columns of the chosen rows with their label tokens.

    Rows without a column get a placeholder and count as not covered.

    Args:
        rows: All rows of the pool; each knows how many `targets` it has.
        names: The columns' names.
        column: Returns a column of a row, or None.
        chosen: Indices of the rows.
        device: Device of the result.
    """
    columns, covered = {}, {}
    for name in names:
        stored = [column(name, i) for i in chosen]
        width = min((top.index.shape[1] for top in stored if top is not None), default=0)
        if not width:
            continue
        targets = [rows[i].targets for i in chosen]
        filled = [
            top.narrowed(width) if top is not None else _empty(count, width)
            for count, top in zip(targets, stored, strict=True)
        ]
        columns[name] = TopK(
            *(torch.cat([getattr(top, part) for top in filled]).to(device) for part in TopK.__dataclass_fields__)
        )
        flags = [torch.full((n,), float(top is not None)) for n, top in zip(targets, stored, strict=True)]
        covered[name] = torch.cat(flags).to(device)
    return columns, covered


def _empty(tokens: int, width: int) -> TopK:
    """A placeholder for a row without the column: finite, and multiplied by zero."""
    zeros = torch.zeros(tokens)
    return TopK(torch.arange(width).repeat(tokens, 1), torch.full((tokens, width), -10.0), zeros, zeros)
