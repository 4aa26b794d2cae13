"""Two measured recipes compared in our numbers, and the words for it."""

from collections.abc import Sequence

from perdure.core.estimates import Estimate
from perdure.core.words import counted
from perdure.workflows.advise.answer import PairedGap
from perdure.workflows.advise.candidates import Candidate
from perdure.workflows.advise.table import Arm, Difference


def acc_minus(ours: Arm, theirs: Arm) -> PairedGap | None:
    """Return our ACC minus theirs, paired by test row; None where the table does not have it."""
    seeds = len(set(ours.seeds) & set(theirs.seeds))
    if gap := ours.acc_minus.get(theirs.arm):
        return PairedGap(gap.value, gap.low, gap.high, seeds)
    if gap := theirs.acc_minus.get(ours.arm):
        return PairedGap(-gap.value, -gap.high, -gap.low, seeds)
    return None


def above(ours: Arm, theirs: Arm) -> bool:
    """Return whether our ACC is above theirs: by test row where the table has that, else by intervals that do not meet."""
    if gap := acc_minus(ours, theirs):
        return gap.low > 0
    return ours.acc.low > theirs.acc.high


def rivals(chosen: Candidate, fitting: Sequence[Candidate]) -> list[Arm]:
    """Return what was measured of the candidates that do not differ significantly from the chosen one, the best first."""
    if not chosen.measured:
        return []
    others = [c.measured for c in fitting if c is not chosen and c.measured]
    near = [arm for arm in others if not above(chosen.measured, arm) and not above(arm, chosen.measured)]
    return sorted(near, key=lambda arm: -arm.acc.value)


def accuracy_of(arm: Arm) -> str:
    """Return a measured ACC with its interval, in words."""
    named = ", requests not naming their task" if arm.acc == arm.acc_routed else ""
    return f"{arm.acc.value:.3f} ({arm.acc.low:.3f} to {arm.acc.high:.3f}{named})"


def margin(ours: Arm, theirs: Arm) -> str:
    """Return in words how far our ACC is above theirs."""
    if gap := acc_minus(ours, theirs):
        return f"{ours.arm} is {signed(gap)} above {theirs.arm}, {pairs(gap)}"
    return f"{theirs.arm} reached {accuracy_of(theirs)}, {ours.arm} {accuracy_of(ours)}"


def signed(gap: PairedGap | Difference | Estimate) -> str:
    """Return a difference with its interval, in words."""
    return f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"


def pairs(gap: PairedGap) -> str:
    """Return what a difference was paired over, in words."""
    return f"paired by test row over {counted(gap.seeds, 'shared seed')}"
