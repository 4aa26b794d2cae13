"""Scorers that are no part of perdure: functions of installed packages, and functions of files that the user trusts.

[project.entry-points."perdure.scorers"]
close_enough = "my_package.scoring:close_enough"
"""

from collections.abc import Callable, Collection
from numbers import Real
from typing import Any

from perdure.core.errors import BadInput, BadSpec
from perdure.core.packages import brought, raised
from perdure.core.plain_text import quoted

GROUP = "perdure.scorers"
PREFIX = "python:"  # begins the name of a scorer in a file: python:FILE.py:NAME

Scorer = Callable[[str, str], float]


def in_file(name: str) -> tuple[str, str] | None:
    """Return the file and the function of a scorer `python:FILE.py:NAME`; None for another name.

    Raises:
        BadSpec: The name begins so, and has no file or no function.
    """
    if not name.startswith(PREFIX):
        return None
    file, _, function = name.removeprefix(PREFIX).rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise BadSpec(f"scorer {quoted(name)} names no function of a file; write python:FILE.py:NAME")
    return file, function


def scorer_of_text(text: str, name: str) -> Scorer:
    """Return the function that a scorer `python:FILE.py:NAME` names, from the text of its file. The text is run.

    Raises:
        BadInput: The text cannot be run, or has no such function.
    """
    found = in_file(name)
    if found is None:
        raise ValueError(f"{name!r} names no file")
    file, function = found
    names: dict[str, Any] = {"__name__": "perdure_own_scorer", "__file__": file}
    try:
        exec(compile(text, file, "exec"), names)  # noqa: S102 (a text that the user trusted)
    except Exception as error:  # the user's own code runs here, which may raise anything
        raise BadInput(f"scorer {name}: {file} cannot be run: {raised(error)}; correct it") from error
    if not callable(names.get(function)):
        raise BadInput(f"scorer {name}: {file} has no function {function}")
    return checked(names[function], name)


def outside_scorers(known: Collection[str]) -> dict[str, Scorer]:
    """Return the scorers of installed packages by the name of their entry point.

    Args:
        known: Names of the scorers of perdure.

    Raises:
        BadSpec: A package's scorer cannot be loaded, is no function, or has a name that is taken; the message names the package.
    """
    scorers: dict[str, Scorer] = {}
    for point in brought(GROUP):
        if point.name in known or point.name in scorers:
            raise BadSpec(f"{point.where}: there is another scorer {point.name!r}; rename it, or uninstall the package")
        function = point.load()
        if not callable(function):
            raise BadSpec(
                f"{point.where} is no function of a prediction and a reference; repair or uninstall the package"
            )
        scorers[point.name] = checked(function, point.name)
    return scorers


def checked(function: Callable[[str, str], Any], name: str) -> Scorer:
    """Return a scorer whose errors, and values that are no score, are errors that name it and the two texts."""

    def score(prediction: str, reference: str) -> float:
        texts = f"prediction {quoted(prediction)} and reference {quoted(reference)}"
        try:
            value = function(prediction, reference)
        except Exception as error:  # the user's own code runs here, which may raise anything
            raise BadInput(f"scorer {name} failed on {texts}: {raised(error)}") from error
        if not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise BadInput(f"scorer {name} returned {quoted(value)} for {texts}; a score is a number from 0 to 1")
        return float(value)

    return score
