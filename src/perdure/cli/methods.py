"""`perdure methods`: the ideas against forgetting that a recipe can use."""

import inspect
import re
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

import typer

from perdure.cli.options import AsJson
from perdure.cli.output import emit, table
from perdure.core.errors import NotFound


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this method whole.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods a recipe can use, or show one with its fields."""
    from perdure.core.recipe import nearest
    from perdure.methods.registry import all_methods

    known = all_methods()
    if name is not None and name not in known:
        raise NotFound(f"no method {name!r}{nearest(name, list(known))}")
    found = [_described(method) for key, method in known.items() if name in (None, key)]
    if as_json:
        return emit(found)
    if name is None:
        rows = [[m["name"], m["family"], ", ".join(m["seams"]), m["source"]] for m in found]
        return typer.echo(table(["method", "family", "seams", "source"], rows))
    rows = [[key, f["type"], f["default"], f["about"]] for key, f in found[0]["fields"].items()]
    typer.echo(f"{name} ({found[0]['family']}), {found[0]['source']}\n\n{found[0]['about']}\n")
    typer.echo(table(["field", "type", "default", "what it is"], rows))


def _described(method: Any) -> dict[str, Any]:
    """Return a method class as JSON; what its fields mean is said by the comments beside them."""
    types = get_type_hints(method)  # without the ranges, which the comments say in words
    said = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(method), re.MULTILINE))
    return {
        "name": method.name,
        "family": method.family,
        "seams": list(method.seams),
        "fields": {
            field.name: {
                "type": inspect.formatannotation(types[field.name]).removeprefix("typing."),
                "default": None if field.default is MISSING else field.default,
                "about": said.get(field.name, ""),
            }
            for field in fields(method)
        },
        "source": method.source,
        "about": inspect.getdoc(method),
    }
