"""The recipe with the best measured accuracy, and why; without numbers, what the field advises."""

from collections.abc import Sequence

from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.words import counted
from perdure.workflows.advise.answer import NO_SOURCE, Reason
from perdure.workflows.advise.candidates import LAST_RESORTS, Candidate, of_rule
from perdure.workflows.advise.comparison import above, accuracy_of, margin
from perdure.workflows.advise.guidance import Rule
from perdure.workflows.advise.table import Arm


def choose(fitting: Sequence[Candidate], field: Sequence[Rule]) -> tuple[Candidate, Reason]:
    """Return the recipe with the best measured ACC, and why; without numbers, what the field advises, else the default.

    A recipe is passed over if another is above it by test row: its ACC may come from easier seeds. A baseline that was the
    only recipe measured is not the best of anything.
    """
    measured = [(c, c.measured) for c in fitting if c.measured]
    if any(c.methods for c, _ in measured):
        return _best(sorted(measured, key=lambda pair: -pair[1].acc.value))
    for rule in field:
        if advised := of_rule(rule, fitting):
            sentence = f"{rule.situation} the field advises {rule.says}; this rests on the literature alone"
            return advised, Reason(sentence, rule.source)
    first = next(c for name in (DEFAULT_RECIPE, *LAST_RESORTS) for c in fitting if c.name == name)
    sentence = f"{first.name}: nothing that fits was measured, and no advice of the field fits"
    return first, Reason(sentence, NO_SOURCE)


def _best(ranked: Sequence[tuple[Candidate, Arm]]) -> tuple[Candidate, Reason]:
    """Return the first that no other is above, and why; the first where each has another above it."""
    others = "1 other fits" if len(ranked) == 2 else f"{len(ranked) - 1} others fit"
    first, first_arm = ranked[0]
    unbeaten = (pair for pair in ranked if not any(above(other, pair[1]) for _, other in ranked))
    best, arm = next(unbeaten, ranked[0])
    if best is first:
        sentence = f"{best.name} has the best ACC measured of what fits: {accuracy_of(arm)}; {others}"
        return best, measured_reason(sentence, arm)
    better = next(other for _, other in ranked if above(other, first_arm))
    passed = f"{first.name} reached {accuracy_of(first_arm)}, but {margin(better, first_arm)}"
    return best, measured_reason(f"{best.name} reached {accuracy_of(arm)}; {passed}; {others}", arm)


def measured_reason(sentence: str, arm: Arm) -> Reason:
    """Return a reason whose source is the measurement of an arm."""
    return Reason(sentence, f"perdure bench, {counted(len(arm.seeds), 'seed')}, n = {arm.acc.n}")
