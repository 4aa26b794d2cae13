"""The methods that exist. A method's file carries the line that names it; nothing else has to change to add one."""

import copy
import importlib
import pkgutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import yaml

import perdure.methods
from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_yaml import read_yaml_file
from perdure.core.recipe import Recipe, build_recipe, nearest
from perdure.core.seams import Method, checked_method
from perdure.core.values import shown
from perdure.methods.outside import outside_methods

METHODS: dict[str, type[Method]] = {}
RECIPES = Path(__file__).parent / "recipes"

M = TypeVar("M", bound=type)


def register(method: M) -> M:
    """Class decorator: make `method` known under its name, after checking it.

    Raises:
        BadSpec: Another method has its name, or see `checked_method`.
    """
    checked = checked_method(method)
    if METHODS.get(checked.name, checked) is not checked:
        raise BadSpec(f"two methods are named {checked.name!r}; rename one")
    METHODS[checked.name] = checked
    return method


def own_methods() -> dict[str, type[Method]]:
    """Return the methods of perdure by name, after importing each file of each family once."""
    for module in pkgutil.walk_packages(perdure.methods.__path__, "perdure.methods."):
        importlib.import_module(module.name)
    return dict(sorted(METHODS.items()))


def all_methods() -> dict[str, type[Method]]:
    """Return every method by name: those of perdure, and those that installed packages bring.

    Raises:
        BadSpec: See `outside_methods`.
    """
    own = own_methods()
    return dict(sorted({**own, **outside_methods(own)}.items()))


def recipe_names() -> list[str]:
    """Return the names of the recipes that are shipped."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(
    recipe: str | PathLike[str] | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Return a recipe with `overrides` applied.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, the content of such a file, or a `Recipe`.
        overrides: Dotted keys to values, such as {"learning_rate": 1e-4, "methods.replay.mix": 0.3}. None for a method
            ("methods.tail_average": None) takes it out.

    Raises:
        BadInput: No such recipe or file.
        BadSpec: See `build_recipe`; or two overrides set one thing.
    """
    if isinstance(recipe, Recipe):
        return build_recipe(overridden(recipe.to_json(), overrides), all_methods()) if overrides else recipe
    if isinstance(recipe, Mapping):
        return build_recipe(overridden(recipe, overrides), all_methods())
    if not isinstance(recipe, str | PathLike):
        raise BadSpec(f"{shown(recipe)} is no recipe; give a name, a path, a mapping, or a Recipe")
    return build_recipe(recipe_spec(recipe, overrides), all_methods())


def recipe_spec(name_or_path: str | PathLike[str], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a recipe as it is written, without the defaults of what it does not mention; see `load_recipe`.

    Raises:
        BadInput: No such recipe or file.
        BadSpec: It is no valid YAML, or no mapping, or a method in it has no value.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{name_or_path}.yaml"
        if not path.is_file():
            raise BadInput(
                f"no recipe {str(name_or_path)!r} and no .yaml file{nearest(str(name_or_path), recipe_names())}"
            )
    spec = read_yaml_file(path, "recipe")
    if not isinstance(spec, dict):
        raise BadSpec(f"recipe {path}: expected a mapping of settings, got {type(spec).__name__}")
    _refuse_blank(path.read_text(encoding="utf-8-sig"), path)
    return overridden({"name": path.stem, **spec}, overrides)


def overridden(spec: Mapping[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the content of a recipe with dotted keys set in it; `spec` stays as it is.

    Raises:
        BadSpec: A key is none, leads through what is not a mapping, or is set together with a part of it.
    """
    changed = copy.deepcopy(dict(spec))
    keys = list(overrides or {})
    for key in keys:
        if not isinstance(key, str) or not all(key.split(".")):
            raise BadSpec(f"{key!r} is no key of a recipe; write learning_rate, or methods.replay.mix")
        if part := next((other for other in keys if str(other).startswith(f"{key}.")), None):
            raise BadSpec(f"{key} and {part} are both set; give one of them")
    for key, value in (overrides or {}).items():
        _put(changed, key.split("."), value)
    return changed


def _put(spec: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if spec.get(key) is None:
            spec[key] = {}
        spec = spec[key]
        if not isinstance(spec, dict):
            raise BadSpec(f"cannot set {'.'.join(keys)}: {key} is not a mapping")
    spec[keys[-1]] = value


def _refuse_blank(text: str, path: Path) -> None:
    """Refuse a method whose name has nothing behind it: who writes so may mean its defaults, and null takes it out.

    Raises:
        BadSpec: With the line and what to write.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    methods = [value for key, value in (root.value if root else ()) if key.value == "methods"]
    pairs = [pair for node in methods if isinstance(node, yaml.MappingNode) for pair in node.value]
    for key, value in pairs:
        if isinstance(value, yaml.ScalarNode) and value.value == "" and value.style is None:
            raise BadSpec(
                f"recipe {path}:{key.start_mark.line + 1}: method {key.value} has no value; write {{}} for its defaults, or "
                "null to leave it out"
            )
