"""Division of a micro-batch into forwards, so that rows of different length do not pad each other and memory is limited."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from perdure.memory.pool import Pool
from perdure.train.draws import DrawName, MicroBatch, rows_in

SEPARATE = (
    1.5  # a draw gets its own forward if a common one would compute this many times the tokens; each forward has a cost
)


def forwards_of(
    micro: MicroBatch, rows: Sequence[Any], pools: Mapping[str, Pool], padded_tokens: Callable[[Sequence[Any]], int]
) -> list[MicroBatch]:
    """Return the parts of a micro-batch that each run in one forward: one part, or one with the new rows and another one.

    A draw gets a separate forward if it would pad all other rows, or stop them from sharing the prefix of their prompts. General
    instructions among short classified texts do so.

    Args:
        micro: The micro-batch.
        rows: The new rows.
        pools: Memory by pool name.
        padded_tokens: Returns the tokens that a forward over rows computes.
    """
    draws = sorted(draw for draw, own in micro.drawn.items() if own)
    if not draws or not micro.new:
        return [micro]
    of_a_pool = [{draw for draw in draws if draw.pool == pool} for pool in sorted({draw.pool for draw in draws})]

    def cost(parts: Sequence[MicroBatch]) -> int:
        return sum(padded_tokens(rows_in(part, rows, pools)) for part in parts)

    ways = [_in_two(micro, those) for those in [*({draw} for draw in draws), *of_a_pool, {*draws}]]
    best = min(ways, key=cost)
    return best if cost([micro]) > SEPARATE * cost(best) else [micro]


def _in_two(micro: MicroBatch, draws: Collection[DrawName]) -> list[MicroBatch]:
    """Return a micro-batch as two: one without some draws, and one with only these draws."""
    rest = {draw: own for draw, own in micro.drawn.items() if draw not in draws}
    return [
        replace(micro, drawn=rest),
        replace(micro, new=(), drawn={draw: micro.drawn[draw] for draw in sorted(draws)}),
    ]


def fitted(
    micro: MicroBatch, rows: Sequence[Any], pools: Mapping[str, Pool], forwards: Sequence[MicroBatch], room: float
) -> list[MicroBatch]:
    """Split a micro-batch that is too large for one forward; the shortest rows go together, to save padding.

    It is too large where drawn rows make it so, or where memory ran out.

    Args:
        micro: What to split.
        rows: The new rows.
        pools: Memory by pool name.
        forwards: Its `forwards_of`; the rows of a second one are divided among the parts, since they pad no others.
        room: Largest number of padded tokens of one forward.
    """
    parts = min(math.ceil(size_of(forwards, rows, pools) / room), len(micro.new))
    if parts < 2:
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


def size_of(forwards: Sequence[MicroBatch], rows: Sequence[Any], pools: Mapping[str, Pool]) -> int:
    """Return the padded tokens of forwards, as `fitted` counts them: without what a shared prefix saves."""
    lengths = [[len(row) for row in rows_in(part, rows, pools)] for part in forwards]
    return sum(len(own) * max(own) for own in lengths)


def _lengths(micro: MicroBatch, pools: Mapping[str, Pool]) -> dict[tuple[DrawName, int], int]:
    """Return the tokens of each drawn row."""
    return {(draw, i): len(pools[draw.pool].rows[i]) for draw, own in micro.drawn.items() for i in own}


def _pieces(lengths: Mapping[Any, int], parts: int) -> list[list[Any]]:
    """Divide the keys, shortest first, into `parts` runs whose sizes differ by at most one."""
    keys = sorted(lengths, key=lengths.__getitem__)
    return [keys[len(keys) * n // parts : len(keys) * (n + 1) // parts] for n in range(parts)]
