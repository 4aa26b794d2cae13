"""Methods of other packages: a package names its method classes under the entry point group `perdure.methods`.

[project.entry-points."perdure.methods"]
cpr = "my_package.cpr:Cpr"
"""

from collections.abc import Mapping

from perdure.core.errors import BadSpec
from perdure.core.packages import Brought, brought
from perdure.core.seams import Method, checked_method

GROUP = "perdure.methods"


def outside_methods(known: Mapping[str, type[Method]]) -> dict[str, type[Method]]:
    """Return the methods of other packages by name.

    Args:
        known: The methods of perdure itself.

    Raises:
        BadSpec: A package's method cannot be loaded, is no method, or has a name that is taken; the message names the package.
    """
    methods: dict[str, type[Method]] = {}
    brought_by = dict.fromkeys(known, "perdure")
    for point in brought(GROUP):
        method = _load(point)
        if {**known, **methods}.get(method.name, method) is not method:
            raise BadSpec(
                f"packages {brought_by[method.name]} and {point.package} both have a method {method.name!r}; rename one, or "
                "uninstall a package"
            )
        methods[method.name] = method
        brought_by[method.name] = point.package
    return methods


def _load(point: Brought) -> type[Method]:
    """Return the class that an entry point names, after checking it.

    Raises:
        BadSpec: With the package and the entry point.
    """
    method = point.load()
    try:
        return checked_method(method)
    except BadSpec as error:
        raise BadSpec(f"{point.where}: {error}; repair or uninstall the package") from error
