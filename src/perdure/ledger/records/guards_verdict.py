"""The verdict on the guards of a workspace: what the model could do before, and how much of it is left."""

from dataclasses import dataclass
from typing import Literal

from perdure.core.records import Record, omitted
from perdure.core.tables import Grid, Tabular, cells_of

DRIFT = "drift"  # the ability of guards that measure distance from the reference, not right or wrong
GUARD_COLUMNS = (
    "guard",
    "ability",
    "verdict",
    "before",
    "now",
    "drop",
    "low",
    "high",
    "n",
    "groups",
    "limit",
    "more_items",
)
GuardWord = Literal["pass", "inconclusive", "fail", "blind"]


@dataclass(frozen=True, kw_only=True)
class GuardVerdict(Record):
    """The verdict on one guard.

    Args:
        guard: Its name.
        ability: What it measures.
        verdict: The decision; "blind" where the reference is not above chance, so that the guard cannot fall.
        before: Its score at the reference.
        now: Its score now.
        drop: `before - now`.
        low: Lower one-sided bound of the drop.
        high: Upper one-sided bound.
        n: Number of rows.
        groups: Number of groups of rows that were resampled; 0 where rows are independent.
        tolerance: Drop above which it fails.
        limit: Drop up to which it passes.
        p: P value of "it lost at most the tolerance", adjusted for the number of guards where the gate corrects for it.
        more_items: Number of further rows that would decide if the drop stays as it is; None where it is decided, or where no
            number would decide.
        budget: Name of the budget by which its rows were chosen.
        warns: It drifted by more than half of what passes.
        reason: The verdict in a sentence.
        selected: Its rows were selected at the base, so that both scores are those of no benchmark.
    """

    guard: str
    ability: str
    verdict: GuardWord
    before: float
    now: float
    drop: float
    low: float
    high: float
    n: int
    groups: int = omitted(0)
    tolerance: float
    limit: float
    p: float | None = omitted(None)
    more_items: int | None
    budget: str
    warns: bool = omitted(False)
    reason: str
    selected: bool = omitted(False)


@dataclass(frozen=True)
class MeanDrop(Record):
    """The mean drop over the abilities, each guard with the same weight.

    Args:
        verdict: "pass" where the upper bound is within the limit, else "inconclusive".
        drop: The mean.
        low: Its lower one-sided bound.
        high: Its upper one-sided bound.
        limit: Largest mean drop that passes.
        guards: Number of guards.
        more_items: Number of further rows of each guard that would make it pass if the drops stay as they are; None where it
            passes, or where no number would.
    """

    verdict: Literal["pass", "inconclusive"]
    drop: float
    low: float
    high: float
    limit: float
    guards: int
    more_items: int | None


@dataclass(frozen=True)
class WorstDrop(Record):
    """The largest drop of an ability. The largest of many noisy drops is too large, so its bounds hold for all guards together.

    Args:
        guard: The guard that lost most.
        drop: Its drop.
        low: Lower bound, simultaneous (Bonferroni).
        high: Upper bound, simultaneous.
        guards: Number of guards.
    """

    guard: str
    drop: float
    low: float
    high: float
    guards: int


@dataclass(frozen=True)
class GuardsVerdict(Record, Tabular):
    """The verdict on all guards of a workspace.

    Args:
        verdict: The decision.
        enforced: Whether it is part of the gate's verdict.
        reason: The decision in a sentence.
        guards: The verdict on each guard, the worst first, blind ones last.
        mean: The mean drop over the abilities that can be seen; None where there is none.
        worst: The largest drop of these; None where there is none.
        advice: What a user can do, each a sentence.
    """

    verdict: Literal["pass", "inconclusive", "fail"]
    enforced: bool
    reason: str
    guards: tuple[GuardVerdict, ...]
    mean: MeanDrop | None
    worst: WorstDrop | None
    advice: tuple[str, ...] = omitted(())

    @property
    def alarms(self) -> bool:
        """Whether a user is to be warned: a guard failed, or it drifted by more than half of what passes."""
        return self.verdict == "fail" or any(guard.warns for guard in self.guards)

    def grid(self) -> Grid:
        """Return a row for each guard, the worst first."""
        return Grid(
            GUARD_COLUMNS,
            tuple(cells_of(guard, GUARD_COLUMNS) for guard in self.guards),
            f"guards: {self.verdict}, {self.reason}",
        )
