"""The recipes that could be advised, and what was measured of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.errors import BadSpec
from perdure.core.recipe import Recipe, build_recipe
from perdure.core.seams import Method
from perdure.workflows.advise.guidance import Rule
from perdure.workflows.advise.table import Arm, MeasuredSuite, WrittenRecipe

LAST_RESORTS = ("lwf", "naive")  # recipes that keep no rows, the better idea first


@dataclass(frozen=True)
class Candidate:
    """A recipe that could be advised.

    Args:
        name: Its name, or the arm's.
        written: As a file would have it.
        recipe: The same, built.
        measured: Its line of the measured table, None where it has none.
    """

    name: str
    written: WrittenRecipe
    recipe: Recipe
    measured: Arm | None = None

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Names of its methods."""
        return tuple(method.name for method in self.recipe.methods)


def candidates(
    suite: MeasuredSuite | None,
    field: Sequence[Rule],
    registry: Mapping[str, type[Method]],
    shipped: Mapping[str, WrittenRecipe],
) -> list[Candidate]:
    """Return the measured arms, the default and the last resorts, and what the field advises, each set of methods once."""
    by_name: dict[str, Candidate] = {}
    for arm in suite.arms if suite else ():
        try:
            by_name[arm.arm] = Candidate(arm.arm, arm.recipe, build_recipe(arm.recipe, registry), arm)
        except BadSpec:  # an arm of methods that no longer exist
            continue
    for name in (DEFAULT_RECIPE, *LAST_RESORTS):
        if name not in by_name and name in shipped:
            by_name[name] = Candidate(name, dict(shipped[name]), build_recipe(shipped[name], registry))
    known = {c.methods for c in by_name.values()}
    for rule in field:
        if not missing(rule, registry) and tuple(sorted(rule.parts)) not in known:
            fields: JsonValue = {part: {} for part in rule.parts}
            same = (n for n, recipe in shipped.items() if {**recipe, "name": n} == {"name": n, "methods": fields})
            name = next(same, " + ".join(rule.parts) + " (defaults)")
            written: WrittenRecipe = {"name": name, "methods": fields}
            by_name[name] = Candidate(name, written, build_recipe(written, registry))
            known.add(by_name[name].methods)
    return list(by_name.values())


def missing(rule: Rule, registry: Mapping[str, type[Method]]) -> list[str]:
    """Return what a rule advises that no method here does yet."""
    return [what for name, what in rule.parts.items() if name not in registry]


def of_rule(rule: Rule, among: Iterable[Candidate]) -> Candidate | None:
    """Return the recipe of a rule's methods and no others: the arm that it names, else the best measured of several."""
    same = [candidate for candidate in among if candidate.methods == tuple(sorted(rule.parts))]
    same = [candidate for candidate in same if candidate.name == rule.arm] or same
    return max(same, key=lambda c: c.measured.acc.value if c.measured else -1.0, default=None)
