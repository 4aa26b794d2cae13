"""What a method is, and what a recipe does and costs, in words and numbers, before anything runs."""

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from perdure.core import seams
from perdure.core.fields import LARGEST, MANY, Share
from perdure.core.recipe import Recipe, Settings
from perdure.core.seams import EXCLUSIVE, SEAMS, pool_of, spec_of

if TYPE_CHECKING:
    from perdure.bridges.sizes import Size
    from perdure.ledger import Ledger

Json = dict[str, Any]

MOMENTS = {
    "task opens": ("prepare",),
    "each update": ("draw", "loss", "reference", "mask", "gradient", "watch"),
    "task closes": ("settle", "measure", "admit"),
}
SECTIONS = ("Seams", "State", "Cost", "Needs", "When to use", "Source", "Deviation")
_HEADS = re.compile(rf"(?:^|(?<=[.;]\s))({'|'.join(SECTIONS)})s?( from [^:\n]{{1,40}})?:\s+", re.MULTILINE)


# ---- methods


def describe(method: Any) -> Json:
    """Return a method class as plain JSON: what `perdure methods --json` prints of it."""
    formula, says = sections(inspect.getdoc(method) or "")
    return {
        "name": method.name,
        "family": method.family,
        "seams": list(method.seams),
        "fields": {name: about for name, about in _fields(method).items()},
        "source": method.source,
        "idea": (sys.modules[method.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
        "formula": formula,
        "says": says,
        "exclusive": [seam for seam in method.seams if seam in EXCLUSIVE],
        "about": inspect.getdoc(method),
    }


def sections(text: str) -> tuple[str, dict[str, str]]:
    """Return a method's docstring as its formula (what stands before the first section) and its sections by name.

    The sections are those of `SECTIONS`; "Deviation from X:" begins with "from X: ".
    """
    heads = list(_HEADS.finditer(text))
    said: dict[str, str] = {}
    ends = [*(head.start() for head in heads[1:]), len(text)]
    for head, end in zip(heads, ends, strict=False):
        words = text[head.end() : end]
        body = f"{(head[2] or '').strip()}: {words}" if head[2] else words
        name = head[1].lower()
        said[name] = " ".join([*filter(None, [said.get(name)]), *body.split()])
    return text[: heads[0].start() if heads else None].strip(), said


def seam_words() -> dict[str, str]:
    """Return what each seam is for: the first clause of what its Protocol says."""
    found = {}
    for protocol in vars(seams).values():
        if match := re.match(r"Seam `(\w+)`: (.*?)(?:[.;]\s|\.?$)", inspect.getdoc(protocol) or "", re.DOTALL):
            found[match[1]] = " ".join(match[2].split())
    return found


def _fields(method: Any) -> dict[str, Json]:
    """Return type, range, default and meaning of each field; the meaning is the comment beside it."""
    source = inspect.getsource(method)
    said = dict(re.findall(r"^    (\w+): (?:.|\n(?=     ))*?  # (.*)$", source, re.MULTILINE))  # over wrapped lines too
    plain, full = get_type_hints(method), get_type_hints(method, include_extras=True)
    return {
        field.name: {
            "type": inspect.formatannotation(plain[field.name]).removeprefix("typing."),
            "range": _range(full[field.name]),
            "default": None if field.default is MISSING else field.default,
            "about": said.get(field.name, ""),
        }
        for field in fields(method)
    }


def _range(hint: Any) -> str | None:
    """Return the range that a recipe is checked against, in words, without bounds beyond reason; None where there is none."""
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if hint == Share:
        return "0 to 1"
    bounds = [bound for extra in getattr(hint, "__metadata__", ()) for bound in getattr(extra, "metadata", ())]
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [(word, getattr(bound, key)) for bound in bounds for key, word in words.items() if hasattr(bound, key)]
    told = [f"{word} {value:g}" for word, value in found if value not in (LARGEST, MANY)]
    return " and ".join(told) or None


# ---- recipes


def explain(
    recipe: Recipe,
    written: Mapping[str, Any],
    registry: Mapping[str, type],
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
        ledger: A workspace whose memory is told.
    """
    from perdure.workflows.advise.rehearse import rehearse

    cost = rehearse(recipe)
    return {
        "name": recipe.name,
        "methods": {method.name: spec_of(method) for method in recipe.methods},
        "off": sorted(set(written.get("methods") or {}) - {method.name for method in recipe.methods}),
        "settings": recipe.settings.model_dump(mode="json"),
        "changed": [n for n, f in Settings.model_fields.items() if getattr(recipe.settings, n) != f.default],
        "moments": moments(recipe),
        "exclusive": exclusive(recipe, registry),
        "needs": {what: names for what in seams.NEEDS if (names := recipe.needs(what))},
        "columns": columns(recipe),
        "memory": memory(recipe, ledger),
        "cost": asdict(cost),
        "model": size and _absolute(recipe, size, cost),
    }


def moments(recipe: Recipe) -> list[Json]:
    """Return every seam in the order of a task, with its owners, what it is for, and whether it has room for many."""
    words = seam_words()
    return [
        {
            "moment": moment,
            "seam": seam,
            "owners": [method.name for method in (recipe.drawing if seam == "draw" else recipe.owners(seam))],
            "room": "one" if seam in EXCLUSIVE else "many",
            "for": words[seam],
        }
        for moment, order in MOMENTS.items()
        for seam in order
    ]


def exclusive(recipe: Recipe, registry: Mapping[str, type]) -> list[Json]:
    """Return the exclusive seams that are taken, by whom, and which methods cannot be added for it."""
    names = {method.name for method in recipe.methods}
    return [
        {
            "seam": seam,
            "owner": owner.name,
            "keeps_out": [n for n, m in registry.items() if seam in m.seams and n not in names],  # type: ignore[attr-defined]
        }
        for seam in SEAMS
        if seam in EXCLUSIVE and (owner := recipe.owner(seam))
    ]


def columns(recipe: Recipe) -> list[Json]:
    """Return the columns that are written beside rows: whose, who says them, for whom, and bytes a label token.

    Kept beside remembered rows: 4 + 2 bytes for each of top_k, and 6 for the rest of the mass and the partition function.
    Beside new rows they are held while the task is learned, at twice the size.
    """
    found = []
    for of in ("new", "replay", "general"):
        for column in recipe.columns(of):
            wanting = [
                m.name for m in recipe.methods for c in getattr(m, "columns", ()) if (c.name, c.of) == (column.name, of)
            ]
            whole = column.top_k >= WHOLE
            size = None if whole else (6 * column.top_k + 6) * (2 if of == "new" else 1)
            about = {"name": column.name, "rows": of, "teacher": column.teacher, "refresh": column.refresh}
            found.append(
                {**about, "top_k": None if whole else column.top_k, "bytes_per_label_token": size, "for": wanting}
            )
    return found


WHOLE = 10**6  # a top_k that no vocabulary reaches


def memory(recipe: Recipe, ledger: "Ledger | None" = None) -> Json:
    """Return which pools methods draw from, what may be kept in them, and what a workspace holds now."""
    settings, pools = recipe.settings, sorted({pool_of(method) for method in recipe.drawing})
    ranks = recipe.owner("admit")
    told: Json = {
        "pools": {pool: [m.name for m in recipe.drawing if pool_of(m) == pool] for pool in pools},
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
        told["now"] = {key: now[key] for key in ("rows", "pools", "text_bytes", "column_bytes")}
    return told


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
