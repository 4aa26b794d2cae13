"""What a method is, and what a recipe does and costs, in words and numbers, before anything runs."""

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perdure.core.fields import described
from perdure.core.recipe import Recipe
from perdure.core.seams import NEEDS, SEAMS, Method
from perdure.core.settings import Settings

if TYPE_CHECKING:
    from perdure.bridges.sizes import Size
    from perdure.ledger import Ledger

Json = dict[str, Any]

SECTIONS = ("Seams", "State", "Cost", "Needs", "When to use", "Source", "Deviation")
_HEADS = re.compile(rf"(?:^|(?<=[.;]\s))({'|'.join(SECTIONS)})s?( from [^:\n]{{1,40}})?:\s+", re.MULTILINE)


# ---- methods


def describe(method: type[Method]) -> Json:
    """Return a method class as plain JSON: what `perdure methods --json` prints of it."""
    formula, says = sections(inspect.getdoc(method) or "")
    return {
        "name": method.name,
        "family": method.family,
        "seams": list(method.seams),
        "fields": {name: asdict(about) for name, about in described(method).items()},
        "supports": sorted(method.supports),
        "source": method.source,
        "idea": (sys.modules[method.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
        "formula": formula,
        "says": says,
        "exclusive": [seam for seam in method.seams if SEAMS[seam].exclusive],
        "module": method.__module__,
        "about": inspect.getdoc(method),
    }


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
    written: Mapping[str, Any],
    registry: Mapping[str, type[Method]],
    *,
    size: "Size | None" = None,
    ledger: "Ledger | None" = None,
) -> Json:
    """Return what `recipe` does in an update and around it, and what it costs; what `recipe explain --json` prints.

    Args:
        recipe: The recipe.
        written: The same as it was written: methods that stand there and not in `recipe` are switched off.
        registry: All methods, for what could not be added.
        size: Parameters of a model and of what the recipe trains on it; bytes are then absolute too.
        ledger: A workspace whose memory is described.
    """
    from perdure.workflows.advise.rehearse import rehearse

    cost = rehearse(recipe)
    return {
        "name": recipe.name,
        "methods": {method.name: method.to_json() for method in recipe.methods},
        "off": sorted(set(written.get("methods") or {}) - {method.name for method in recipe.methods}),
        "settings": recipe.settings.model_dump(mode="json"),
        "changed": [n for n, f in Settings.model_fields.items() if getattr(recipe.settings, n) != f.default],
        "moments": moments(recipe),
        "exclusive": exclusive(recipe, registry),
        "needs": {what: names for what in NEEDS if (names := recipe.needs(what))},
        "columns": columns(recipe),
        "memory": memory(recipe, ledger),
        "cost": asdict(cost),
        "model": size and _absolute(recipe, size, cost),
    }


def moments(recipe: Recipe) -> list[Json]:
    """Return every seam in the order of a task, with its owners, what it is for, and whether it has room for many."""
    return [
        {
            "moment": seam.moment,
            "seam": name,
            "owners": [method.name for method in (recipe.drawing if name == "draw" else recipe.owners(name))],
            "room": "one" if seam.exclusive else "many",
            "for": seam.purpose,
        }
        for name, seam in SEAMS.items()
    ]


def exclusive(recipe: Recipe, registry: Mapping[str, type[Method]]) -> list[Json]:
    """Return the exclusive seams that are taken, by whom, and which methods cannot be added for it."""
    names = {method.name for method in recipe.methods}
    return [
        {
            "seam": name,
            "owner": owner.name,
            "keeps_out": [n for n, method in registry.items() if name in method.seams and n not in names],
        }
        for name, seam in SEAMS.items()
        if seam.exclusive and (owner := recipe.owner(name))
    ]


def columns(recipe: Recipe) -> list[Json]:
    """Return the columns that rows carry: which rows, whose distribution, for which methods, and bytes for each label token.

    Stored with rows in memory: 4 + 2 bytes for each of top_k, and 6 for the rest of the mass and the partition function.
    With new rows they are in memory while the task is learned, at twice the size.
    """
    carried = []
    for of in ("new", "replay", "general"):
        for column in recipe.columns(of):
            wanting = [m.name for m in recipe.methods for c in m.columns if (c.name, c.of) == (column.name, of)]
            whole = column.top_k >= WHOLE
            size = None if whole else (6 * column.top_k + 6) * (2 if of == "new" else 1)
            about = {"name": column.name, "rows": of, "teacher": column.teacher, "refresh": column.refresh}
            carried.append(
                {**about, "top_k": None if whole else column.top_k, "bytes_per_label_token": size, "for": wanting}
            )
    return carried


WHOLE = 10**6  # a top_k that no vocabulary reaches


def memory(recipe: Recipe, ledger: "Ledger | None" = None) -> Json:
    """Return which pools methods draw from, what may enter them, and what a workspace holds now."""
    settings, pools = recipe.settings, sorted({method.pool for method in recipe.drawing if method.pool})
    ranks = recipe.owner("admit")
    known: Json = {
        "pools": {pool: [method.name for method in recipe.drawing_from(pool)] for pool in pools},
        "keeps_rows": recipe.remembers,
        "starved": recipe.starved,
        "admission": (ranks.name if ranks else "reservoir") if recipe.remembers else None,
        "memory_per_label": settings.memory_per_label,
        "memory_per_task": settings.memory_per_task,
        "memory_size": settings.memory_size,
    }
    if ledger is not None:
        from perdure.workflows.inspect.memory_views import memory_stats

        now = memory_stats(ledger)
        known["now"] = {key: now[key] for key in ("rows", "pools", "text_bytes", "column_bytes")}
    return known


def _absolute(recipe: Recipe, size: "Size", cost: Any) -> Json:
    """Return bytes for a model: weights, gradients and AdamW's moments of what is trained, and each method's state."""
    n = size.trainable
    return {
        "parameters": size.parameters,
        "trainable": n,
        "training_bytes": {"weights": 4 * n, "gradients": 4 * n, "optimizer": 8 * n, "held": round(cost.held * n)},
        "state_bytes": {
            name: {"learning": round(state.learning * n), "kept": round(state.kept * n)}
            for name, state in cost.state.items()
        },
    }
