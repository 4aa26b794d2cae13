"""Methods and recipes by name: listed, explained and advised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.core.errors import NotFound
from perdure.core.recipe import build_recipe, nearest
from perdure.core.records import Record
from perdure.methods.registry import RECIPES, all_methods, load_recipe, recipe_names, recipe_spec
from perdure.workflows.advise.advise import advise
from perdure.workflows.advise.answer import Advice
from perdure.workflows.advise.explain import describe, explain
from perdure.workflows.advise.explanation import Explanation, MethodCard
from perdure.workflows.advise.guidance import Needs
from perdure.workflows.advise.table import read_rehearsal, read_table

if TYPE_CHECKING:
    from perdure.ledger import Ledger


@dataclass(frozen=True)
class RecipeLine(Record):
    """A recipe that is shipped.

    Args:
        name: Its name.
        about: What it does, in a sentence.
        methods: Names of its methods.
    """

    name: str
    about: str
    methods: tuple[str, ...]


def method_cards(name: str | None = None) -> list[MethodCard]:
    """Return every method for a reader, or the one of this name.

    Raises:
        NotFound: No method has this name.
    """
    known = all_methods()
    if name is not None and name not in known:
        raise NotFound(f"no method {name!r}{nearest(name, list(known))}")
    return [describe(method) for key, method in known.items() if name in (None, key)]


def list_recipes() -> list[RecipeLine]:
    """Return the recipes that are shipped."""
    found = [load_recipe(name) for name in recipe_names()]
    return [RecipeLine(one.name, _about(one.name), tuple(method.name for method in one.methods)) for one in found]


def explain_recipe(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
    ledger: "Ledger | None" = None,
) -> Explanation:
    """Return which method of a recipe fills which seam, what it stores, and what it costs.

    Args:
        name: Name of a recipe, or a YAML file.
        overrides: Dotted recipe keys to values.
        model: Count bytes for this model; None takes the one of the workspace, if there is one.
        ledger: The workspace whose memory is shown.
    """
    written, registry = recipe_spec(name, overrides), all_methods()
    recipe, size = build_recipe(written, registry), None
    if wanted := model or (ledger.model if ledger else None):
        from perdure.bridges.sizes import sizes

        size = sizes(wanted, recipe.settings, ledger.config.get("revision") if ledger and not model else None)
    return explain(recipe, written, registry, size=size, ledger=ledger)


def advise_recipe(needs: Needs) -> Advice:
    """Return a recipe for the work ahead, with the reasons; see `advise`."""
    shipped = {name: recipe_spec(name) for name in recipe_names()}
    return advise(needs, read_table(), all_methods(), shipped, read_rehearsal())


def _about(name: str) -> str:
    """Return the comment that opens a shipped recipe's file."""
    first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").split("\n")[0]
    return first.removeprefix("#").strip()
