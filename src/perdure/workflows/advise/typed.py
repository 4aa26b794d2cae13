"""A recipe as one types it: a shipped recipe, and the settings that make it another."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields

import yaml
from pydantic import JsonValue

from perdure.core.recipe import Recipe, build_recipe
from perdure.core.seams import Method
from perdure.workflows.advise.table import WrittenRecipe


def command(written: WrittenRecipe, registry: Mapping[str, type[Method]], shipped: Mapping[str, WrittenRecipe]) -> str:
    """Return the command that learns with a recipe: the shipped one nearest to it, and `--set` for what differs.

    Args:
        written: The recipe.
        registry: The methods there are.
        shipped: Shipped recipes as they are written, by name; at least one.
    """
    recipe = build_recipe(written, registry)
    ways = {name: _changes(build_recipe(spec, registry), recipe) for name, spec in shipped.items()}
    base = min(ways, key=lambda name: (len(ways[name]), name))
    pairs = (f"{key}={_plain(value)}" for key, value in ways[base].items())
    return shlex.join(["perdure", "learn", "TASK", "DATA", "--recipe", base, *(w for p in pairs for w in ("--set", p))])


def _changes(base: Recipe, wanted: Recipe) -> dict[str, JsonValue]:
    """Return the dotted keys, with their values, that turn `base` into `wanted`."""
    had, settings = base.settings.model_dump(mode="json"), wanted.settings.model_dump(mode="json")
    changed: dict[str, JsonValue] = {key: value for key, value in settings.items() if had.get(key) != value}
    methods = {method.name: method for method in base.methods}
    for method in wanted.methods:
        fresh = method.name not in methods
        before = type(method)() if fresh else methods.pop(method.name)
        names = [field.name for field in fields(method)]
        differing = [name for name in names if getattr(before, name) != getattr(method, name)]
        values = asdict(method)  # `to_json` leaves out some fields at their defaults
        changed |= {f"methods.{method.name}.{name}": values[name] for name in differing}
        if fresh and not differing:
            changed[f"methods.{method.name}"] = {}
    return {**changed, **{f"methods.{name}": None for name in methods}}


def _plain(value: JsonValue) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n...\n").strip()
