"""The verdict on guards as lines of text."""

from perdure.evaluate.wording import bounds, percent, points
from perdure.ledger.records import GuardsVerdict, GuardVerdict
from perdure.ledger.records.guards_verdict import DRIFT


def guards_screen(verdict: GuardsVerdict, *, reason: bool = True, advice: bool = True) -> list[str]:
    """Return the verdict on guards as lines: the decision, the reason, each guard, the mean and the worst, what to do.

    Args:
        verdict: The verdict.
        reason: Print the reason; False where the gate's own reason has it.
        advice: Print what to do; False where a warning has it.
    """
    rule = "part of the gate" if verdict.enforced else "only a warning, not part of the gate"
    lines = [f"guards: {verdict.verdict.upper()} ({rule})", *([verdict.reason] if reason else [])]
    width = max(len(one.guard) for one in verdict.guards)
    kinds = max(len(one.ability) for one in verdict.guards)
    lines += [_line(one, width, kinds) for one in verdict.guards]
    if (mean := verdict.mean) and (worst := verdict.worst) and mean.guards > 1:
        lines.append(
            f"mean of {mean.guards} abilities: {bounds(mean.drop, mean.low, mean.high)} (limit {points(mean.limit)}); "
            f"worst {worst.guard}: {bounds(worst.drop, worst.low, worst.high)}, all {worst.guards} together"
        )
    return [*lines, *(f"what to do: {text}" for text in verdict.advice if advice)]


def _line(one: GuardVerdict, width: int, kinds: int) -> str:
    word = "warn" if one.warns and one.verdict != "fail" else one.verdict
    groups = f" in {one.groups} groups" if one.groups else ""
    limit = "drift" if one.ability == DRIFT else "limit"
    allowed = "" if one.verdict == "blind" else f" ({limit} {points(one.limit)})"
    scores = f"{percent(one.before):>6} -> {percent(one.now):>6}  n={one.n:<5}"
    return f"{word:<12}  {one.guard:<{width}}  {one.ability:<{kinds}}  {scores}{groups}  {one.reason}{allowed}"
