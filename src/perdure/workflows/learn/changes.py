"""What the user changed in a recipe."""

from dataclasses import asdict

from perdure.core.recipe import Recipe
from perdure.core.records import JsonObject
from perdure.core.settings import Settings
from perdure.workflows.session import Session


def changes(session: Session, recipe: Recipe) -> JsonObject:
    """Return the keys of a recipe whose values are not those of the shipped recipe of its name, or not the defaults.

    A method that was taken out is null. A `max_length` that is lowered to the positions of the model is no change.
    """
    from perdure.bridges.models import positions
    from perdure.methods.registry import load_recipe, recipe_names

    usual = (
        load_recipe(recipe.name)
        if recipe.name in recipe_names()
        else Recipe(recipe.name, Settings.model_validate({}), ())
    )
    mine, theirs = _flat(recipe), _flat(usual)
    if mine["max_length"] == positions(session.base_folder):
        del mine["max_length"]
    gone = {method.name for method in usual.methods} - {method.name for method in recipe.methods}
    different = {key: value for key, value in mine.items() if key not in theirs or value != theirs[key]}
    return different | {f"methods.{name}": None for name in sorted(gone)}


def _flat(recipe: Recipe) -> JsonObject:
    """Return a recipe by dotted keys, as --set has them."""
    settings = recipe.settings.model_dump(mode="json")
    return settings | {f"methods.{m.name}.{key}": value for m in recipe.methods for key, value in asdict(m).items()}
