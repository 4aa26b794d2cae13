"""A recipe for a user's situation, with the reasons: hard constraints first, then our own numbers, then what the field advises.

The numbers are in advice.json, which benchmarks/advice.py makes from the results of `perdure bench`. Everything here is a
pure function of the needs, that table and the registry. Where a number and the field disagree, both are reported, and the
number decides; where nothing was measured, that is reported too.
"""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from perdure.core.errors import BadInput
from perdure.core.recipe import build_recipe
from perdure.core.seams import Method
from perdure.core.words import some
from perdure.workflows.advise.answer import Advice, Missing, Reason, RefusedRecipe, Rival
from perdure.workflows.advise.candidates import Candidate, candidates, missing
from perdure.workflows.advise.cautions import cautions
from perdure.workflows.advise.choice import choose
from perdure.workflows.advise.comparison import acc_minus, accuracy_of, rivals
from perdure.workflows.advise.constraints import refusal, rows_within
from perdure.workflows.advise.guidance import FIELD, Needs
from perdure.workflows.advise.reasons import REHEARSING, changes, reasons
from perdure.workflows.advise.table import Arm, MeasuredSuite, RehearsalPair, WrittenRecipe, nearest_suite
from perdure.workflows.advise.typed import command


def advise(
    needs: Needs,
    suites: Sequence[MeasuredSuite],
    registry: Mapping[str, type[Method]],
    shipped: Mapping[str, WrittenRecipe],
    rehearsal: Sequence[RehearsalPair] = (),
) -> Advice:
    """Return a recipe for the work ahead, with the reasons.

    Args:
        needs: The user's needs.
        suites: The measured table.
        registry: The methods there are.
        shipped: Shipped recipes as they are written, by name.
        rehearsal: The measured effect of rehearsing general instructions.

    Raises:
        BadInput: No recipe fits all needs.
    """
    suite = nearest_suite(needs, suites)
    if suite and not needs.task_known:
        suite = suite.without_names()
    field = [rule for rule in FIELD if rule.holds(needs)]
    everything = candidates(suite, field, registry, shipped)
    refused = {c.name: why for c in everything if (why := refusal(c, needs))}
    fitting = [c for c in everything if c.name not in refused]
    if not fitting:
        raise BadInput(f"no recipe fits all of this; ask for less: {_grouped(refused)}")
    chosen, how = choose(fitting, [rule for rule in field if not missing(rule, registry)])
    recipe = fitted(chosen, needs, registry)
    return Advice(
        recipe=recipe,
        based_on=chosen.name,
        measured=chosen.measured,
        suite=suite.summary if suite else None,
        reasons=(
            how,
            *reasons(chosen, everything, refused, field, registry, suite),
            *changes(chosen, needs, registry, rehearsal),
            without_training(suite),
        ),
        rivals=tuple(_rival(arm, chosen.measured) for arm in rivals(chosen, fitting) if chosen.measured),
        refused=tuple(RefusedRecipe(name, why) for name, why in refused.items()),
        not_here=tuple(
            Missing(what, f"{rule.situation}: {rule.says}", rule.source)
            for rule in field
            for what in missing(rule, registry)
        ),
        cautions=tuple(cautions(chosen, needs, suite)),
        command=command(recipe, registry, shipped),
        commands={c.name: command(c.written, registry, shipped) for c in everything if c.name not in shipped},
    )


def fitted(chosen: Candidate, needs: Needs, registry: Mapping[str, type[Method]]) -> WrittenRecipe:
    """Return the recipe as a file, with what the needs change."""
    written: dict[str, JsonValue] = {**chosen.written, "name": "advised"}
    rows = rows_within(chosen, needs)
    if chosen.recipe.remembers and rows is not None:
        written["memory_size"] = min(rows, chosen.recipe.settings.memory_size)
    if needs.instructions and REHEARSING in registry and REHEARSING not in chosen.methods:
        methods = written.get("methods")
        written["methods"] = {**(methods if isinstance(methods, dict) else {}), REHEARSING: {}}
    build_recipe(written, registry)
    return written


def without_training(suite: MeasuredSuite | None) -> Reason:
    """Return the advice to try a classifier without training, with its measured score where there is one."""
    arm = next((arm for arm in suite.arms if arm.arm == "slda"), None) if suite else None
    reached = f"; on {suite.name} it reached {accuracy_of(arm)}" if suite and arm else ""
    return Reason(
        "a task of plain labels may not need training at all: 'perdure learn TASK DATA --recipe slda' takes seconds and stores "
        f"no row{reached}; compare its score on such a task first",
        "Hayes & Kanan 2020, arXiv 1909.01520; docs/benchmarks.md",
    )


def _grouped(refused: Mapping[str, str]) -> str:
    """Return why recipes were refused, each reason once, that of the fewest recipes first."""
    names: dict[str, list[str]] = {}
    for name, why in refused.items():
        names.setdefault(why, []).append(name)
    return "; ".join(f"{some(own)}: {why}" for why, own in sorted(names.items(), key=lambda pair: len(pair[1])))


def _rival(arm: Arm, chosen: Arm) -> Rival:
    return Rival(arm.arm, arm.acc, acc_minus(arm, chosen), arm.train_ratio)
