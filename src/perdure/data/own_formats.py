"""Formats of other packages: functions that return the columns of a row under names that perdure reads.

[project.entry-points."perdure.formats"]
faq = "my_package.data:faq"
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from perdure.core.errors import BadInput, BadSpec
from perdure.core.packages import brought, raised
from perdure.core.plain_text import quoted
from perdure.data.columns import FORMATS
from perdure.data.read import Record

GROUP = "perdure.formats"

Convert: TypeAlias = "Callable[[dict[str, Any]], Mapping[str, Any]]"


def outside_formats(known: Collection[str] = tuple(FORMATS)) -> dict[str, Convert]:
    """Return the formats of installed packages by the name of their entry point.

    Args:
        known: Names of the formats of perdure.

    Raises:
        BadSpec: A package's format cannot be loaded, is no function, or has a name that is taken; the message names the package.
    """
    formats: dict[str, Convert] = {}
    brought_by = dict.fromkeys(known, "perdure")
    for point in brought(GROUP):
        if point.name in brought_by:
            both = " and ".join(sorted((brought_by[point.name], point.package)))
            raise BadSpec(f"{both} both have a format {point.name!r}; rename one, or uninstall a package")
        function = point.load()
        if not callable(function):
            raise BadSpec(f"{point.where} is no function of the columns of a row; repair or uninstall the package")
        formats[point.name] = _checked(function, f"format {point.name} of package {point.package}")
        brought_by[point.name] = point.package
    return formats


def converted(records: Sequence[Record], format: str) -> list[Record]:
    """Return the records with the columns that a format of another package makes of theirs; `split` stays unless it gives one.

    Raises:
        BadInput: The package's function fails on a row, or returns no columns; the message names the row and the package.
        BadSpec: No package has the format, or see `outside_formats`.
    """
    formats = outside_formats()
    if format not in formats:
        raise BadSpec(f"no installed package has the format {quoted(format)}; install the package that brings it")
    convert = formats[format]
    return [_converted(record, convert) for record in records]


def _converted(record: Record, convert: Convert) -> Record:
    try:
        fields = dict(convert(dict(record.fields)))
    except BadInput as error:
        raise BadInput(f"{record.source}: {error}") from error
    split = {"split": record.fields["split"]} if "split" in record.fields else {}
    return Record({**split, **fields}, record.source)


def _checked(function: Callable[[dict[str, Any]], Any], name: str) -> Convert:
    """Return a format whose errors, and values that are no columns, are errors that name it."""

    def convert(fields: dict[str, Any]) -> Mapping[str, Any]:
        try:
            value = function(fields)
        except Exception as error:  # the package's own code runs here, which may raise anything
            raise BadInput(f"{name} failed: {raised(error)}; correct the row, or repair the package") from error
        if not isinstance(value, Mapping) or not value or not all(isinstance(column, str) for column in value):
            raise BadInput(f"{name} returned {quoted(value)}; it returns columns by name, as prompt and completion")
        return value

    return convert
