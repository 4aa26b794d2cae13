"""Two recipes side by side in our numbers, and the words for it."""

from collections.abc import Sequence

from perdure.workflows.advise.candidates import Candidate, Json


def acc_minus(ours: Candidate, theirs: Candidate) -> Json | None:
    """Return our ACC minus theirs, paired by test row ("value", "low", "high", over "seeds" shared); None where not told."""
    mine, other = ours.measured or {}, theirs.measured or {}
    seeds = len(set(mine.get("seeds", ())) & set(other.get("seeds", ())))
    if gap := mine.get("acc_minus", {}).get(theirs.name):
        return {**gap, "seeds": seeds}
    if gap := other.get("acc_minus", {}).get(ours.name):
        return {"value": -gap["value"], "low": -gap["high"], "high": -gap["low"], "seeds": seeds}
    return None


def above(ours: Candidate, theirs: Candidate) -> bool:
    """Say whether our measured ACC is above theirs: by test row where the table has that, else by intervals that do not meet."""
    if ours.measured is None or theirs.measured is None:
        return False
    if gap := acc_minus(ours, theirs):
        return bool(gap["low"] > 0)
    return bool(ours.measured["acc"]["low"] > theirs.measured["acc"]["high"])


def rivals(chosen: Candidate, fitting: Sequence[Candidate]) -> list[Candidate]:
    """Return the measured candidates that cannot be told apart from the chosen one, the best first."""
    if not chosen.measured:
        return []
    others = [c for c in fitting if c is not chosen and c.measured]
    near = [c for c in others if not above(chosen, c) and not above(c, chosen)]
    return sorted(near, key=lambda c: -c.measured["acc"]["value"])  # type: ignore[index]


def accuracy_of(candidate: Candidate) -> str:
    """Return a measured ACC with its interval, in words."""
    acc = (candidate.measured or {})["acc"]
    return f"{acc['value']:.3f} ({acc['low']:.3f} to {acc['high']:.3f})"


def apart(ours: Candidate, theirs: Candidate) -> str:
    """Return in words how far we are above them."""
    if gap := acc_minus(ours, theirs):
        return f"{ours.name} stands {signed(gap)} above {theirs.name}, {pairs(gap)}"
    return f"{theirs.name} reached {accuracy_of(theirs)}, {ours.name} {accuracy_of(ours)}"


def signed(gap: Json) -> str:
    """Return a difference with its interval, in words."""
    return f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})"


def pairs(gap: Json) -> str:
    """Return what a difference was paired over, in words."""
    return f"paired by test row over {gap['seeds']} shared seed{'s' if gap['seeds'] != 1 else ''}"
