"""The recipe with the best measured accuracy, and why; without numbers, what the field advises."""

from collections.abc import Sequence

from perdure.workflows.advise.candidates import DEFAULT, LAST_RESORTS, Candidate, Json, of_rule
from perdure.workflows.advise.comparison import above, accuracy_of, apart
from perdure.workflows.advise.guidance import Rule


def choose(fitting: Sequence[Candidate], field: Sequence[Rule]) -> tuple[Candidate, Json]:
    """Return the recipe with the best measured ACC, and why; without numbers, what the field advises, else the default.

    One that another stands above by test row is passed over: its ACC may be of easier seeds. A baseline that merely was the
    only one measured is no best: it then has nothing to be better than.
    """
    measured = [c for c in fitting if c.measured]
    if any(c.methods for c in measured):
        return _best(sorted(measured, key=lambda c: -c.measured["acc"]["value"]))  # type: ignore[index]
    for rule in field:
        if advised := of_rule(rule, fitting):
            says = f"{rule.situation} the field advises {rule.says}; this rests on the literature alone"
            return advised, {"says": says, "source": rule.source}
    first = next(c for name in (DEFAULT, *LAST_RESORTS) for c in fitting if c.name == name)
    return first, {
        "says": f"{first.name}: nothing that fits was measured, and no advice of the field fits",
        "source": "none",
    }


def _best(ranked: Sequence[Candidate]) -> tuple[Candidate, Json]:
    """Return the first that no other stands above, and why; the first where each has another above it."""
    first = ranked[0]
    best = next((c for c in ranked if not any(above(other, c) for other in ranked)), first)
    others = "1 other fits" if len(ranked) == 2 else f"{len(ranked) - 1} others fit"
    if best is first:
        return best, reason(f"{best.name} has the best ACC measured of what fits: {accuracy_of(best)}; {others}", best)
    better = next(c for c in ranked if above(c, first))
    passed = f"{first.name} reached {accuracy_of(first)}, but {apart(better, first)}"
    return best, reason(f"{best.name} reached {accuracy_of(best)}; {passed}; {others}", best)


def reason(says: str, candidate: Candidate) -> Json:
    """Return a reason that rests on what was measured of a candidate."""
    measured = candidate.measured or {}
    seeds = measured.get("seeds", [])
    return {
        "says": says,
        "source": f"perdure bench, {len(seeds)} seed{'s' if len(seeds) != 1 else ''}, n = {measured['acc']['n']}",
    }
