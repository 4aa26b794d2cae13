"""The methods that exist. A method's file carries the line that names it; nothing else has to change to add one."""

import importlib
import pkgutil
from pathlib import Path
from typing import Any, TypeVar

import yaml

import perdure.methods
from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_yaml import read_yaml
from perdure.core.recipe import Recipe, build_recipe, check_seams, nearest

METHODS: dict[str, type] = {}
RECIPES = Path(__file__).parent / "recipes"

M = TypeVar("M", bound=type)


def register(method: M) -> M:
    """Class decorator: make `method` known under its name, after checking the seams it declares."""
    check_seams(method)
    if METHODS.get(method.name, method) is not method:  # type: ignore[attr-defined]
        raise BadSpec(f"two methods are named {method.name!r}; rename one")  # type: ignore[attr-defined]
    METHODS[method.name] = method  # type: ignore[attr-defined]
    return method


def all_methods() -> dict[str, type]:
    """Return every method by name, after importing each file of the room once."""
    for module in pkgutil.iter_modules(perdure.methods.__path__):
        importlib.import_module(f"perdure.methods.{module.name}")
    return dict(sorted(METHODS.items()))


def recipe_names() -> list[str]:
    """Return the names of the recipes that are shipped."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name_or_path: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Return a shipped recipe by name, or one from a YAML file, with `overrides` applied.

    Args:
        name_or_path: "dual_replay", or a path ending in .yaml or .yml.
        overrides: Dotted keys to values, such as {"learning_rate": 1e-4, "methods.replay.mix": 0.3}.

    Raises:
        BadInput: No such recipe or file.
        BadSpec: See `build_recipe`.
    """
    return build_recipe(recipe_spec(name_or_path, overrides), all_methods())


def recipe_spec(name_or_path: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a recipe as it is written, without the defaults of what it does not mention; see `load_recipe`.

    Raises:
        BadInput: No such recipe or file.
        BadSpec: It is no valid YAML, or no mapping.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{name_or_path}.yaml"
        if not path.is_file():
            raise BadInput(f"no recipe {name_or_path!r} and no .yaml file{nearest(name_or_path, recipe_names())}")
    try:
        spec = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read recipe {path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise BadSpec(f"recipe {path}:{line} is no valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSpec(f"recipe {path} is no valid YAML: {error}") from None
    if not isinstance(spec, dict):
        raise BadSpec(f"recipe {path}: expected a mapping of settings, got {type(spec).__name__}")
    spec.setdefault("name", path.stem)
    for key, value in (overrides or {}).items():
        _put(spec, key.split("."), value)
    return spec


def _put(spec: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        spec[key] = spec.get(key) or {}
        spec = spec[key]
        if not isinstance(spec, dict):
            raise BadSpec(f"cannot set {'.'.join(keys)}: {key} is not a mapping")
    spec[keys[-1]] = value
