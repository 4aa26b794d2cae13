"""Which rows serve an update, and how the shared forward's outputs are cut into each method's part."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from perdure.core.recipe import Recipe
from perdure.core.seams import Draw, DrawContext, State, pool_of
from perdure.core.step import Slice, TopK, row_weights
from perdure.memory.pool import Pool
from perdure.model.forward import Output

APART = 1.5  # a draw runs by itself where all rows together would compute so many times the tokens; a forward has its own cost


@dataclass(frozen=True)
class Micro:
    """One micro-batch: which new rows, which rows of each draw, and the totals of its update.

    Args:
        update: The update, from 0.
        new: New rows.
        drawn: For each draw (a pool's name, or "pool:slice" for a draw of its own) its rows.
        new_tokens: Label tokens of the new rows of the whole update.
        drawn_rows: Rows of each draw in the whole update.
        share: 1 / micro-batches of the update.
    """

    update: int
    new: Sequence[int]
    drawn: Mapping[str, Sequence[int]]
    new_tokens: int
    drawn_rows: Mapping[str, int]
    share: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """The draws of one update.

    Args:
        rows: Rows by draw.
        reads: For each part that a method asked for, the draw it reads.
        waiting: Draws that are not in the shared forward: they run when they are asked for.
    """

    rows: Mapping[str, Sequence[int]]
    reads: Mapping[str, str]
    waiting: Collection[str] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each draw."""
        return {name: len(rows) for name, rows in self.rows.items()}


def pool_in(draw: str) -> str:
    """Return the pool of a draw by its name."""
    return draw.split(":")[0]


def draw_rows(
    recipe: Recipe,
    pools: Mapping[str, Pool],
    states: Mapping[str, State],
    context: DrawContext,
    longest: int,
    *key: object,
) -> Drawn:
    """Ask every method what it wants, merge wishes for the same rows (the largest size), and draw."""
    wishes: dict[str, Draw] = {}
    reads: dict[str, str] = {}
    shared: set[str] = set()
    for method in recipe.owners("draw"):
        pool = pool_of(method)
        if pool not in pools or (wish := method.draw(context, states[method.name])) is None:
            continue
        for suffix, want in wish.items() if isinstance(wish, Mapping) else [("", wish)]:
            part = f"{method.name}.{suffix}" if suffix else method.name
            draw = f"{pool}:{part}" if want.own or want.weights is not None else pool
            reads[part] = draw
            shared |= {draw} if want.shared else set()
            known = wishes.get(draw)
            larger = known is None or (want.size, want.balance) > (known.size, known.balance)  # in any order of methods
            wishes[draw] = want if larger else known  # type: ignore[assignment]
    rows = {
        draw: pools[pool_in(draw)].draw(wish, longest, *key, draw, context.update, account=draw)
        for draw, wish in wishes.items()
        if wish.size
    }
    return Drawn(rows, reads, rows.keys() - shared)


def cut(
    micro: Micro, at: Tensor, labels: Tensor, out: Output, pools: Mapping[str, Pool], reads: Mapping[str, str]
) -> tuple[Slice, dict[str, Slice]]:
    """Return the new rows' slice and each draw's part by the names that methods read; rows stand in the order of `order`."""
    device = out.logits.device
    row_of, labels = at[0].to(device), labels.to(device)
    fresh = row_of < len(micro.new)
    weight = torch.full_like(labels[fresh], 1 / max(micro.new_tokens, 1), dtype=torch.float32)
    places = torch.tensor(micro.new, device=device)[row_of[fresh]] if micro.new else row_of[fresh]
    new = Slice(out.logits[fresh], labels[fresh], weight, out.hidden[fresh], places, torch.zeros_like(places))
    by_draw: dict[str, Slice] = {}
    first = len(micro.new)
    for draw in sorted(micro.drawn):
        rows = micro.drawn[draw]
        mine = (row_of >= first) & (row_of < first + len(rows))
        if rows:
            pool = pools[pool_in(draw)]
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
    return new, {part: by_draw[draw] for part, draw in reads.items() if draw in by_draw}


def forwards_of(
    micro: Micro, rows: Sequence[Any], pools: Mapping[str, Pool], padded_tokens: Callable[[Sequence[Any]], int]
) -> list[Micro]:
    """Return the parts of a micro-batch that run in a forward each: all together, or the one with the new rows and another.

    Draws run apart that would make all rows longer than they are, or keep them from sharing their prompt, as general
    instructions among short classified texts do.

    Args:
        micro: What runs.
        rows: The new rows.
        pools: Memory by pool name.
        padded_tokens: What a forward over rows computes.
    """
    draws = sorted(draw for draw, own in micro.drawn.items() if own)
    if not draws or not micro.new:
        return [micro]
    alike = [{draw for draw in draws if pool_in(draw) == pool} for pool in sorted(set(map(pool_in, draws)))]

    def cost(parts: Sequence[Micro]) -> int:
        return sum(padded_tokens(rows_in(part, rows, pools)) for part in parts)

    ways = [_apart(micro, those) for those in [*({draw} for draw in draws), *alike, {*draws}]]
    best = min(ways, key=cost)
    return best if cost([micro]) > APART * cost(best) else [micro]


def _apart(micro: Micro, draws: Collection[str]) -> list[Micro]:
    """Return a micro-batch in two: without some draws, and those."""
    rest = {draw: own for draw, own in micro.drawn.items() if draw not in draws}
    return [
        replace(micro, drawn=rest),
        replace(micro, new=(), drawn={draw: micro.drawn[draw] for draw in sorted(draws)}),
    ]


def fitted(
    micro: Micro, rows: Sequence[Any], pools: Mapping[str, Pool], forwards: Sequence[Micro], room: float
) -> list[Micro]:
    """Cut a micro-batch that drawn rows make too large for one forward; the shortest rows go together, to save padding.

    Args:
        micro: What to cut; without drawn rows it stays.
        rows: The new rows.
        pools: Memory by pool name.
        forwards: Its `forwards_of`; the rows of another than the first are dealt out, as none pads the others.
        room: Padded tokens that they may hold together.
    """
    lengths = [[len(row) for row in rows_in(part, rows, pools)] for part in forwards]
    parts = min(math.ceil(sum(len(own) * max(own) for own in lengths) / room), len(micro.new))
    if not any(micro.drawn.values()) or parts < 2:
        return [micro]
    first, *others = forwards
    new = _pieces({i: len(rows[i]) for i in first.new}, parts)
    drawn = _pieces(_lengths(first, pools), parts)
    dealt = sorted((length, key) for part in others for key, length in _lengths(part, pools).items())
    return [
        replace(
            micro,
            new=new[n],
            drawn={
                draw: [i for name, i in (*drawn[n], *(key for _, key in dealt[n::parts])) if name == draw]
                for draw in micro.drawn
            },
            share=micro.share / parts,
        )
        for n in range(parts)
    ]


def _lengths(micro: Micro, pools: Mapping[str, Pool]) -> dict[tuple[str, int], int]:
    """Return the tokens of each drawn row."""
    return {(draw, i): len(pools[pool_in(draw)].rows[i]) for draw, own in micro.drawn.items() for i in own}


def _pieces(lengths: Mapping[Any, int], parts: int) -> list[list[Any]]:
    """Cut the keys, shortest first, into `parts` runs that differ by one key at most."""
    keys = sorted(lengths, key=lengths.__getitem__)
    return [keys[len(keys) * n // parts : len(keys) * (n + 1) // parts] for n in range(parts)]


def order(micro: Micro) -> list[tuple[str | None, int]]:
    """Return the rows of a micro-batch in the order they are collated: new ones (None), then each draw's, by its name."""
    return [(None, i) for i in micro.new] + [(draw, i) for draw in sorted(micro.drawn) for i in micro.drawn[draw]]


def rows_in(micro: Micro, rows: Sequence[Any], pools: Mapping[str, Pool]) -> list[Any]:
    """Return the rows of a micro-batch in the order they are collated."""
    return [rows[i] if draw is None else pools[pool_in(draw)].rows[i] for draw, i in order(micro)]


def with_columns(
    new: Slice, columns: Mapping[str, Sequence[TopK]], rows: Sequence[Any], chosen: Sequence[int]
) -> Slice:
    """Return the new rows' slice with the columns that teachers wrote before the task."""
    found, covered = aligned(rows, columns.keys(), lambda name, i: columns[name][i], chosen, new.logits.device)
    return replace(new, columns=found, covered=covered)


def aligned(
    rows: Sequence[Any], names: Any, column: Any, chosen: Sequence[int], device: torch.device
) -> tuple[dict[str, TopK], dict[str, Tensor]]:
    """Align the stored columns of the chosen rows with their label tokens; rows without one are filled and not covered.

    Args:
        rows: All rows of the pool; each knows how many `targets` it has.
        names: The columns' names.
        column: Gives a column of a row, or None.
        chosen: Indices of the rows.
        device: Where the columns are wanted.
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
