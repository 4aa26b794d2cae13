"""`perdure recipe`: the named ways to learn."""

from typing import Annotated, Any

import typer

from perdure.cli.advise import advise
from perdure.cli.explain import explain
from perdure.cli.options import Above, App, AsJson
from perdure.cli.output import emit, print_text, table

recipe = App(
    no_args_is_help=True, help="List recipes, show or explain one, or be advised.\n\nExample: perdure recipe list"
)
recipe.command("explain")(explain)
recipe.command("advise")(advise)


@recipe.callback()
def above(folder: Above = None) -> None:
    """Take the workspace here too, as every group does; recipes do not depend on it."""


@recipe.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that are shipped.

    Example: perdure recipe list
    """
    from perdure.methods.registry import load_recipe, recipe_names

    recipes = [load_recipe(name).to_json() for name in recipe_names()]
    lines = [{"name": r["name"], "about": _about(r["name"]), "methods": list(r["methods"])} for r in recipes]
    if as_json:
        return emit(lines)
    rows = [[line["name"], ", ".join(line["methods"]) or "-", line["about"]] for line in lines]
    print_text(table(["recipe", "methods", "what it does"], rows))


@recipe.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a recipe, or a YAML file.")],
    as_json: AsJson = False,
) -> None:
    """Print a recipe with every setting: as a file, it is a recipe again.

    Example: perdure recipe show dual_replay
    """
    from perdure.methods.registry import load_recipe

    settings = load_recipe(name).to_json()
    return emit(settings) if as_json else print_text(_yaml(settings), nl=False)


def _yaml(value: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _about(name: str) -> str:
    """Return the comment that opens a shipped recipe's file."""
    from perdure.methods.registry import RECIPES

    first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").split("\n")[0]
    return first.removeprefix("#").strip()
