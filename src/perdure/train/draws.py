"""Draws of an update: the rows that methods request from memory, and their division into micro-batches."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.core.recipe import Recipe
from perdure.core.seams import Draw, DrawContext, State
from perdure.memory.pool import Pool


@dataclass(frozen=True, order=True)
class DrawName:
    """One draw of an update.

    Args:
        pool: The memory pool that it draws from.
        part: The only part that reads it; "" for the draw that all methods of the pool share.
    """

    pool: str
    part: str = ""

    def __str__(self) -> str:
        """Return the name of the draw, for random keys and accounts."""
        return f"{self.pool}:{self.part}" if self.part else self.pool


@dataclass(frozen=True)
class DrawnPart:
    """The rows that one method reads of a draw, under their name in `step.drawn`.

    Args:
        method: Name of the method.
        draw: The draw that it reads.
        suffix: Name of the set where the method draws several; "" where it draws one.
    """

    method: str
    draw: DrawName
    suffix: str = ""

    @property
    def name(self) -> str:
        """Name of the part in `step.drawn`."""
        return f"{self.method}.{self.suffix}" if self.suffix else self.method


@dataclass(frozen=True)
class DrawnRows:
    """The draws of one update.

    Args:
        rows: Rows by draw.
        parts: The rows that methods read of them.
        waiting: Draws that are not in the shared forward; a method runs them itself.
    """

    rows: Mapping[DrawName, Sequence[int]]
    parts: Sequence[DrawnPart] = ()
    waiting: Collection[DrawName] = ()

    @property
    def sizes(self) -> dict[DrawName, int]:
        """Rows of each draw."""
        return {draw: len(rows) for draw, rows in self.rows.items()}

    def draw_of(self, part: str) -> DrawName:
        """Return the draw that the part of this name reads."""
        return next(known.draw for known in self.parts if known.name == part)

    def rows_read_by(self, method: str) -> int | None:
        """Return the number of rows in the draws of a method; None where it draws none."""
        draws = {part.draw for part in self.parts if part.method == method}
        return sum(self.sizes.get(draw, 0) for draw in draws) if draws else None


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch: its new rows, its rows of each draw, and the totals of its update.

    Args:
        update: The update, from 0.
        new: New rows.
        drawn: Rows of each draw.
        new_tokens: Label tokens of the new rows of the whole update.
        drawn_rows: Rows of each draw in the whole update.
        share: 1 / micro-batches of the update.
    """

    update: int
    new: Sequence[int]
    drawn: Mapping[DrawName, Sequence[int]]
    new_tokens: int
    drawn_rows: Mapping[DrawName, int]
    share: float = 1.0

    def order(self) -> list[tuple[DrawName | None, int]]:
        """Return the rows in the order they are collated: new ones (None), then each draw's, by its name."""
        return [(None, i) for i in self.new] + [(draw, i) for draw in sorted(self.drawn) for i in self.drawn[draw]]


def draw_rows(
    recipe: Recipe,
    pools: Mapping[str, Pool],
    states: Mapping[str, State],
    context: DrawContext,
    longest: int,
    *key: object,
) -> DrawnRows:
    """Return the rows that the methods request for an update.

    Methods of one pool share one draw, so that a row that several of them request runs forward once. The draw is the largest
    request. Of two requests with the same size and different balances, the balance whose name comes last in the alphabet is
    taken, so that the order of methods in a recipe makes no difference. A method that requests separate rows, or weights, has
    a separate draw.

    Args:
        recipe: Its methods make the requests.
        pools: Memory by pool name.
        states: State of each method.
        context: The update, and the sizes of the pools.
        longest: Tokens of the longest new row.
        *key: Key of the update's randomness, without the draw and the update.
    """
    requests: dict[DrawName, Draw] = {}
    parts: list[DrawnPart] = []
    shared: set[DrawName] = set()
    for method in recipe.drawing:
        pool = method.pool
        if pool is None or pool not in pools or (request := method.draw(context, states[method.name])) is None:
            continue
        for suffix, draw in request.items() if isinstance(request, Mapping) else [("", request)]:
            part = DrawnPart(method.name, DrawName(pool), suffix)
            if draw.own or draw.weights is not None:
                part = DrawnPart(method.name, DrawName(pool, part.name), suffix)
            parts.append(part)
            shared |= {part.draw} if draw.shared else set()
            requests[part.draw] = max(requests.get(part.draw, draw), draw, key=lambda one: (one.size, one.balance))
    rows = {
        name: pools[name.pool].draw(request, longest, *key, str(name), context.update, account=str(name))
        for name, request in requests.items()
        if request.size
    }
    return DrawnRows(rows, parts, rows.keys() - shared)


def rows_in(micro: MicroBatch, rows: Sequence[Any], pools: Mapping[str, Pool]) -> list[Any]:
    """Return the rows of a micro-batch in the order they are collated."""
    return [rows[i] if draw is None else pools[draw.pool].rows[i] for draw, i in micro.order()]
