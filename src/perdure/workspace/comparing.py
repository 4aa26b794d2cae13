"""The verbs that compare methods and recipes; they need no workspace, and can be called on the class."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.device import ANY
from perdure.core.progress import Tick
from perdure.core.recipe import Recipe
from perdure.core.tables import Records
from perdure.workspace.opened import AnyPath, Opened

if TYPE_CHECKING:  # imported where they are used: few commands need them, and each costs start-up time
    from perdure.workflows.advise.answer import Advice
    from perdure.workflows.advise.explanation import Explanation, MethodCard
    from perdure.workflows.advise.guidance import Needs
    from perdure.workflows.advise.recipes import RecipeLine
    from perdure.workflows.bench.comparison import BenchComparison
    from perdure.workflows.recipe_import import ImportedRecipe

RECIPES = ("naive", "replay", DEFAULT_RECIPE)


class CompareVerbs(Opened):
    """Compare methods and recipes."""

    @staticmethod
    def methods(name: str | None = None) -> "Records[MethodCard]":
        """Return every method, or the one of this name: formula, seams, cost, when to use it, fields, source.

        Raises:
            NotFound: No method has this name.
        """
        from perdure.workflows.advise.recipes import method_cards

        return Records(method_cards(name))

    @staticmethod
    def recipes() -> "Records[RecipeLine]":
        """Return the recipes that are shipped."""
        from perdure.workflows.advise.recipes import list_recipes

        return Records(list_recipes())

    @staticmethod
    def recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Return a recipe with every setting, by its name or the path of a YAML file.

        Raises:
            BadInput: No such recipe.
            BadSpec: It is not valid.
        """
        from perdure.methods.registry import load_recipe

        return load_recipe(name, overrides)

    @staticmethod
    def import_recipe(file: AnyPath) -> "ImportedRecipe":
        """Return a recipe from the configuration of LLaMA-Factory or Axolotl in a file, with what was not taken."""
        from perdure.workflows.recipe_import import import_recipe

        return import_recipe(Path(file))

    def explain(self, name: str, overrides: Mapping[str, Any] | None = None) -> "Explanation":
        """Return which method of a recipe fills which seam, what it stores, and what it costs with this workspace's model."""
        from perdure.workflows.advise.recipes import explain_recipe

        return explain_recipe(name, overrides, ledger=self.ledger)

    @staticmethod
    def advise(needs: "Needs | None" = None) -> "Advice":
        """Return a recipe for the work ahead, with the reasons."""
        from perdure.workflows.advise.guidance import Needs
        from perdure.workflows.advise.recipes import advise_recipe

        return advise_recipe(needs or Needs())

    @staticmethod
    def bench(
        suite: str,
        recipes: Sequence[str] = RECIPES,
        seeds: Iterable[int] = (0,),
        *,
        data: AnyPath = ".",
        out: AnyPath = "bench",
        jobs: int = 1,
        against: str = "naive",
        device: str = ANY,
        tick: Tick | None = None,
    ) -> "BenchComparison":
        """Run recipes with seeds on a suite, each run that is not finished in its own process, and compare all results.

        Args:
            suite: Name of a suite, or a YAML file.
            recipes: Recipes to compare, each [LABEL=]RECIPE[:KEY=VALUE,...].
            seeds: Each recipe runs with each.
            data: Folder of the data files.
            out: Results go to OUT/SUITE/.
            jobs: Runs at the same time.
            against: Recipe that the others are compared with.
            device: Where models are loaded.
            tick: Called with (what, tasks learned, of how many).

        Returns:
            The comparison; `failed` has the runs that failed.
        """
        from perdure.workflows.bench.bench import bench
        from perdure.workflows.bench.compare import compare
        from perdure.workflows.bench.jobs import read_arm, results
        from perdure.workflows.bench.runner import BenchPlace
        from perdure.workflows.bench.suite_files import load_suite

        chosen = load_suite(suite)
        arms = [read_arm(text, chosen.settings) for text in recipes]
        bench(chosen, arms, seeds, BenchPlace(Path(data), Path(out), jobs, device), tick=tick)
        return compare(results(chosen, Path(out))[0], against)
