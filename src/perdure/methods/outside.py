"""Methods of other packages: a package names its method classes under the entry point group `perdure.methods`.

[project.entry-points."perdure.methods"]
cpr = "my_package.cpr:Cpr"
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from perdure.core.errors import BadSpec
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
    for point in entry_points(group=GROUP):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "a package without a name"
        method = _load(point, package)
        if {**known, **methods}.get(method.name, method) is not method:
            raise BadSpec(
                f"packages {brought_by[method.name]} and {package} both have a method {method.name!r}; rename one, or uninstall "
                "a package"
            )
        methods[method.name] = method
        brought_by[method.name] = package
    return methods


def _load(point: EntryPoint, package: str) -> type[Method]:
    """Return the class that an entry point names, after checking it.

    Raises:
        BadSpec: With the package and the entry point.
    """
    where = f"package {package}, entry point {point.name} = {point.value} of {GROUP}"
    try:
        method = point.load()
    except Exception as error:  # the package's own code runs here, which may raise anything
        what = f"{type(error).__name__}: {error}"
        raise BadSpec(f"{where} cannot be loaded: {what}; repair or uninstall the package") from error
    try:
        return checked_method(method)
    except BadSpec as error:
        raise BadSpec(f"{where}: {error}; repair or uninstall the package") from error
