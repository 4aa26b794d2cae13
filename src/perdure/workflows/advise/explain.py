"""What a method is, and what a recipe does and costs, in words and numbers, before anything runs."""

import inspect
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

from perdure.core.fields import described
from perdure.core.recipe import Recipe
from perdure.core.seams import NEEDS, SEAMS, Method
from perdure.core.settings import Settings
from perdure.workflows.advise.explanation import (
    CarriedColumn,
    Cost,
    Explanation,
    MemoryPlan,
    MemorySize,
    MethodCard,
    ModelBytes,
    Moment,
    StateSize,
    TakenSeam,
    TrainingBytes,
)

if TYPE_CHECKING:
    from perdure.bridges.sizes import Size
    from perdure.ledger import Ledger

WHOLE = 10**6  # a top_k that no vocabulary reaches
SECTIONS = ("Seams", "State", "Cost", "Needs", "When to use", "Source", "Deviation")
_HEADS = re.compile(rf"(?:^|(?<=[.;]\s))({'|'.join(SECTIONS)})s?( from [^:\n]{{1,40}})?:\s+", re.MULTILINE)


# ---- methods


def describe(method: type[Method]) -> MethodCard:
    """Return a method class for a reader."""
    formula, docs = sections(inspect.getdoc(method) or "")
    return MethodCard(
        name=method.name,
        family=method.family,
        seams=tuple(method.seams),
        fields=described(method),
        supports=tuple(sorted(method.supports)),
        source=method.source,
        idea=(sys.modules[method.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
        formula=formula,
        says=docs,
        exclusive=tuple(seam for seam in method.seams if SEAMS[seam].exclusive),
        module=method.__module__,
        about=inspect.getdoc(method),
    )


def sections(text: str) -> tuple[str, dict[str, str]]:
    """Return a method's docstring as its formula (what stands before the first section) and its sections by name.

    The sections are those of `SECTIONS`; "Deviation from X:" begins with "from X: ".
    """
    heads = list(_HEADS.finditer(text))
    bodies: dict[str, str] = {}
    ends = [*(head.start() for head in heads[1:]), len(text)]
    for head, end in zip(heads, ends, strict=False):
        words = text[head.end() : end]
        body = f"{(head[2] or '').strip()}: {words}" if head[2] else words
        name = head[1].lower()
        bodies[name] = " ".join([*filter(None, [bodies.get(name)]), *body.split()])
    return text[: heads[0].start() if heads else None].strip(), bodies


# ---- recipes


def explain(
    recipe: Recipe,
    written: Mapping[str, JsonValue],
    registry: Mapping[str, type[Method]],
    *,
    size: "Size | None" = None,
    ledger: "Ledger | None" = None,
) -> Explanation:
    """Return what `recipe` does in an update and around it, and what it costs.

    Args:
        recipe: The recipe.
        written: The same as it was written: methods that it names and that are not in `recipe` are switched off.
        registry: All methods, for what could not be added.
        size: Parameters of a model and of what the recipe trains on it; bytes are then absolute too.
        ledger: A workspace whose memory is described.
    """
    from perdure.workflows.advise.rehearse import rehearse

    cost, named = rehearse(recipe), written.get("methods")
    return Explanation(
        name=recipe.name,
        methods={method.name: method.to_json() for method in recipe.methods},
        off=tuple(sorted(set(named if isinstance(named, dict) else ()) - {method.name for method in recipe.methods})),
        settings=recipe.settings.model_dump(mode="json"),
        changed=tuple(n for n, f in Settings.model_fields.items() if getattr(recipe.settings, n) != f.default),
        moments=tuple(moments(recipe)),
        exclusive=tuple(exclusive(recipe, registry)),
        needs={what: tuple(names) for what in NEEDS if (names := recipe.needs(what))},
        columns=tuple(columns(recipe)),
        memory=memory(recipe, ledger),
        cost=cost,
        model=_absolute(size, cost) if size else None,
    )


def moments(recipe: Recipe) -> list[Moment]:
    """Return every seam in the order of a task, with its owners, what it is for, and whether it has room for many."""
    owners = {name: recipe.drawing if name == "draw" else recipe.owners(name) for name in SEAMS}
    return [
        Moment(
            seam.moment,
            name,
            tuple(method.name for method in owners[name]),
            "one" if seam.exclusive else "many",
            seam.purpose,
        )
        for name, seam in SEAMS.items()
    ]


def exclusive(recipe: Recipe, registry: Mapping[str, type[Method]]) -> list[TakenSeam]:
    """Return the exclusive seams that are taken, by whom, and which methods cannot be added for it."""
    names = {method.name for method in recipe.methods}
    return [
        TakenSeam(
            name, owner.name, tuple(n for n, method in registry.items() if name in method.seams and n not in names)
        )
        for name, seam in SEAMS.items()
        if seam.exclusive and (owner := recipe.owner(name))
    ]


def columns(recipe: Recipe) -> list[CarriedColumn]:
    """Return the columns that rows carry.

    Stored with rows in memory: 4 + 2 bytes for each of top_k, and 6 for the rest of the mass and the partition function.
    With new rows they are in memory while the task is learned, at twice the size.
    """
    carried = []
    for of in ("new", "replay", "general"):
        for column in recipe.columns(of):
            readers = tuple(m.name for m in recipe.methods for c in m.columns if (c.name, c.of) == (column.name, of))
            whole = column.top_k >= WHOLE
            size = None if whole else (6 * column.top_k + 6) * (2 if of == "new" else 1)
            top_k = None if whole else column.top_k
            carried.append(CarriedColumn(column.name, of, column.teacher, column.refresh, top_k, size, readers))
    return carried


def memory(recipe: Recipe, ledger: "Ledger | None" = None) -> MemoryPlan:
    """Return the pools that methods draw from, their limits, and the size of a workspace's memory now."""
    settings, pools = recipe.settings, sorted({method.pool for method in recipe.drawing if method.pool})
    ranks = recipe.owner("admit")
    return MemoryPlan(
        pools={pool: tuple(method.name for method in recipe.drawing_from(pool)) for pool in pools},
        keeps_rows=recipe.remembers,
        starved=tuple(recipe.starved),
        admission=(ranks.name if ranks else "reservoir") if recipe.remembers else None,
        memory_per_label=settings.memory_per_label,
        memory_per_task=settings.memory_per_task,
        memory_size=settings.memory_size,
        now=_remembered(ledger) if ledger is not None else None,
    )


def _remembered(ledger: "Ledger") -> MemorySize:
    from perdure.workflows.inspect.memory_views import memory_stats

    now = memory_stats(ledger)
    return MemorySize(now.rows, now.pools, now.text_bytes, now.column_bytes)


def _absolute(size: "Size", cost: Cost) -> ModelBytes:
    """Return bytes for a model: weights, gradients and AdamW's moments of what is trained, and each method's state."""
    n = size.trainable
    return ModelBytes(
        parameters=size.parameters,
        trainable=n,
        training_bytes=TrainingBytes(weights=4 * n, gradients=4 * n, optimizer=8 * n, held=round(cost.held * n)),
        state_bytes={
            name: StateSize(round(state.learning * n), round(state.kept * n)) for name, state in cost.state.items()
        },
    )
