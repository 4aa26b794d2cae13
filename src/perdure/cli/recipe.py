"""`perdure recipe`: the named ways to learn."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.advise import advise
from perdure.cli.explain import explain
from perdure.cli.names import recipes
from perdure.cli.options import Above, App, AsJson
from perdure.cli.output import emit, print_message, print_text, table
from perdure.core.errors import BadInput
from perdure.core.files import write_text

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
    from perdure.workflows.advise.recipes import list_recipes

    recipes = list_recipes()
    if as_json:
        return emit([line.to_json() for line in recipes])
    rows = [[line.name, ", ".join(line.methods) or "-", line.about] for line in recipes]
    print_text(table(["recipe", "methods", "what it does"], rows))


@recipe.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=recipes, help="Name of a recipe, or a YAML file.")
    ],
    as_json: AsJson = False,
) -> None:
    """Print a recipe with every setting: as a file, it is a recipe again.

    Example: perdure recipe show lora_mlp
    """
    from perdure.methods.registry import load_recipe

    settings = load_recipe(name).to_json()
    return emit(settings) if as_json else print_text(_yaml(settings), nl=False)


@recipe.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML of LLaMA-Factory or Axolotl.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Recipe file to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a recipe of the configuration of another trainer, and list what was not taken.

    The recipe is the default one with the settings that have a counterpart. What belongs to the workspace or to the data is shown
    as the commands to run.

    Example: perdure recipe import llama_factory.yaml -o mine.yaml
    """
    from perdure.workflows.recipe_import import import_recipe

    made = import_recipe(file)
    if as_json:
        return emit(made.to_json())
    text = f"# from {file.name} ({made.source})\n" + _yaml(
        {**made.settings, "methods": made.recipe.to_json()["methods"]}
    )
    if output:
        if output.exists() and not force:
            raise BadInput(f"{output} is there already; --force replaces it")
        write_text(output, text)
        print_message(f"wrote {output}")
    else:
        print_text(text, nl=False)
    options = "".join(f" {name} {value}" for name, value in made.init.items())
    print_message(f"the workspace: perdure init DIR{options}")
    for name in made.data:
        print_message(f"the data: perdure learn TASK {name} --recipe {output or 'FILE'}")
    for key, why in made.left.items():
        print_message(f"not taken: {key} ({why})")


def _yaml(value: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
