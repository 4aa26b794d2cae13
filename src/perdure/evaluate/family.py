"""The rule for guards: what the model could do before it learned a task, and how far it drifted.

For each guard, drop = score at the reference - score now, paired over its rows. A guard whose reference is not above chance
cannot fall; it is *blind*, and counts for nothing.

* fail: one guard lost more than its tolerance, by Holm's method over all guards. The tolerance of a drift guard is `drift`.
* pass: the upper bound of each drop is within `worst_drop` (of drift: within `drift`), and that of the mean drop over the
  abilities within `mean_drop`. All of it has to hold, so it is an intersection-union test: 95% of each bound is 95% of the whole.
* inconclusive: neither, or every ability is blind.

A few hundred rows can show that an ability collapsed, and not that it lost less than three points. So each guard is held to a
wide limit, and the mean over the guards to a narrow one.

Where nothing at all changed, to the last bit of graded items, the answers are those of the reference, and there is no sample
to err by.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from perdure.core.keyed import seed_of
from perdure.evaluate.blindness import is_blind
from perdure.evaluate.wording import bounds, change, listed, percent, points
from perdure.ledger.records import Gate, GuardItems, GuardsVerdict, GuardVerdict, MeanDrop, WorstDrop
from perdure.ledger.records.guards_verdict import DRIFT, GuardWord
from perdure.maths.families import holm, mean_of_intervals, simultaneous_confidence
from perdure.maths.statistics import Interval, items_needed, paired_difference, paired_p_value

ORDER: tuple[GuardWord, ...] = ("fail", "inconclusive", "pass", "blind")
NAMED = 3  # fallen guards that the reason describes
ADVICE = (
    "rehearse general rows while the task is learned (--general made, or a file), or learn with a lower learning_rate",
    "where the change is wanted, 'perdure guard accept NAME' makes it the new reference",
)


def judge_guards(gate: Gate, guards: Mapping[str, GuardItems]) -> GuardsVerdict:
    """Return the verdict on the guards of a workspace.

    Args:
        gate: The rule.
        guards: Scores by guard; at least one.

    Raises:
        ValueError: There is no guard.

    Cost: closed forms for 0/1 items without groups; else a bootstrap of some 2,000 replicates a guard.
    """
    if not guards:
        raise ValueError("there is no guard to judge")
    compared = [_Compared(gate, name, items, len(guards) > 1) for name, items in guards.items()]
    seen = [one for one in compared if not one.blind]
    p_values = [one.p_value for one in seen]
    adjusted = holm(p_values) if gate.correct == "holm" else p_values
    same = _unchanged(guards.values())
    judged = [_judge(gate, one, p, same, len(seen)) for one, p in zip(seen, adjusted, strict=True)]
    blind = [_blind(one) for one in compared if one.blind]
    abilities = [one for one in seen if not one.is_drift]
    mean = _mean(gate, abilities, same)
    verdicts = tuple(sorted([*judged, *blind], key=lambda one: (ORDER.index(one.verdict), -one.drop, one.guard)))
    worst = _worst(gate, abilities)
    verdict = GuardsVerdict("inconclusive", gate.guards == "enforce", "", verdicts, mean, worst)
    word, reason = _overall(verdict, same)
    verdict = replace(verdict, verdict=word, reason=reason)
    return replace(verdict, advice=ADVICE) if verdict.alarms else verdict


@dataclass(frozen=True)
class _Compared:
    """A guard's scores at its reference and now, compared."""

    gate: Gate
    name: str
    items: GuardItems
    among_many: bool = False

    @property
    def is_drift(self) -> bool:
        return self.items.ability == DRIFT

    @property
    def tolerance(self) -> float:
        """Drop above which the guard fails."""
        return self.gate.tolerances.get(self.name, self.gate.drift if self.is_drift else self.gate.tolerance)

    @property
    def limit(self) -> float:
        """Drop up to which the guard passes."""
        return self.tolerance if self.is_drift else max(self.gate.worst_drop, self.tolerance)

    @property
    def seed(self) -> int:
        return seed_of("guard", self.name)

    @cached_property
    def groups(self) -> int:
        """Number of groups; 0 where each row is one by itself."""
        number = len(set(self.items.groups))
        return 0 if number == len(self.items.rows) else number

    @cached_property
    def blind(self) -> bool:
        """Whether the reference has nothing to lose; never of drift."""
        items = self.items
        return is_blind(
            items.ability,
            items.before,
            items.chance,
            groups=items.groups,
            tolerance=self.tolerance,
            confidence=self.gate.confidence,
        )

    @cached_property
    def drop(self) -> Interval:
        """The drop, with a lower and an upper one-sided bound."""
        return self.drop_with(self.gate.confidence)

    def drop_with(self, confidence: float) -> Interval:
        items = self.items
        return paired_difference(
            items.before, items.now, confidence, one_sided=True, seed=self.seed, groups=items.groups
        )

    @property
    def p_value(self) -> float:
        """P value of "it lost at most the tolerance"; half a row smaller where it is one of many."""
        items = self.items
        return paired_p_value(
            items.before, items.now, self.tolerance, seed=self.seed, groups=items.groups, continuity=self.among_many
        )

    def more_items(self, tests: int) -> int | None:
        """Return how many more rows would decide, if the drop stays: to pass where it is within the limit, else to fail."""
        passes = self.drop[0] < self.limit
        confidence = self.gate.confidence
        if not passes and self.gate.correct == "holm":
            confidence = simultaneous_confidence(confidence, tests)
        items, limit = self.items, self.limit if passes else self.tolerance
        more = items_needed(items.before, items.now, limit, confidence, items.groups)
        return None if more is None else max(more, 1)


def _judge(gate: Gate, one: _Compared, p: float, same: bool, tests: int) -> GuardVerdict:
    drop, low, high = one.drop
    word: GuardWord = "inconclusive"
    if same or high <= one.limit:
        word = "pass"
    if low > one.tolerance and (gate.correct == "none" or p < 1 - gate.confidence):
        word = "fail"
    judged = replace(
        _verdict(one, word),
        p=p,
        more_items=one.more_items(tests) if word == "inconclusive" else None,
        warns=one.is_drift and drop > one.tolerance / 2,
    )
    return replace(judged, reason=_reason(judged))


def _blind(one: _Compared) -> GuardVerdict:
    verdict, chance = _verdict(one, "blind"), one.items.chance or 0.0
    level = f"above chance ({percent(chance)})" if chance else f"above {percent(one.tolerance)}"
    return replace(verdict, reason=f"the reference's {percent(verdict.before)} is not {level}: it cannot fall")


def _verdict(one: _Compared, word: GuardWord) -> GuardVerdict:
    drop, low, high = one.drop
    return GuardVerdict(
        guard=one.name,
        ability=one.items.ability,
        verdict=word,
        before=float(np.mean(one.items.before)),
        now=float(np.mean(one.items.now)),
        drop=drop,
        low=low,
        high=high,
        n=len(one.items.rows),
        groups=one.groups,
        tolerance=one.tolerance,
        limit=one.limit,
        more_items=None,
        budget=one.items.budget,
        reason="",
        selected=one.items.selected,
    )


def _reason(one: GuardVerdict) -> str:
    """Return in words what a guard lost, and what its bounds mean."""
    drift = one.ability == DRIFT
    seen = f"{points(one.drop)} drifted" if drift else change(one.drop)
    if one.verdict == "pass":
        reason = f"{seen}, at most {points(max(one.high, 0.0))}"
    elif one.verdict == "fail":
        reason = f"{seen}, at least {points(one.low)}"
    elif drift:
        reason = f"{seen}, could be {100 * max(one.low, 0.0):.1f} to {100 * one.high:.1f}"
    else:
        reason = bounds(one.drop, one.low, one.high)
    more = f"; about {one.more_items:,} more rows would decide" if one.more_items else ""
    return f"{reason}{more}"


def _unchanged(guards: Iterable[GuardItems]) -> bool:
    """Return whether all items are those of the reference, graded or drift items among them, which a change would move."""
    pairs = [
        (items.ability, before, now) for items in guards for before, now in zip(items.before, items.now, strict=True)
    ]
    fine = any(ability == DRIFT or 0 < before < 1 for ability, before, _ in pairs)
    return fine and all(before == now for _, before, now in pairs)


def _mean(gate: Gate, abilities: Sequence[_Compared], same: bool) -> MeanDrop | None:
    if not abilities:
        return None
    drop, low, high = mean_of_intervals([one.drop for one in abilities])
    if same or high <= gate.mean_drop:
        return MeanDrop("pass", drop, low, high, gate.mean_drop, len(abilities), None)
    more = None
    if drop < gate.mean_drop:  # the distance of the bound falls with the square root of the number of rows
        rows = np.mean([len(one.items.rows) for one in abilities])
        more = max(math.ceil(rows * (((high - drop) / (gate.mean_drop - drop)) ** 2 - 1)), 1)
    return MeanDrop("inconclusive", drop, low, high, gate.mean_drop, len(abilities), more)


def _worst(gate: Gate, abilities: Sequence[_Compared]) -> WorstDrop | None:
    if not abilities:
        return None
    worst = max(abilities, key=lambda one: one.drop[0])
    drop, low, high = worst.drop_with(simultaneous_confidence(gate.confidence, len(abilities)))
    return WorstDrop(worst.name, drop, low, high, len(abilities))


def _overall(verdict: GuardsVerdict, same: bool) -> tuple[Literal["pass", "inconclusive", "fail"], str]:
    """Return the decision on all guards, and its reason."""
    lost = [one for one in verdict.guards if one.verdict == "fail"]
    if lost:
        return "fail", "; ".join(_lost(one) for one in lost[:NAMED]) + _rest(len(lost) - NAMED)
    abilities = [one for one in verdict.guards if one.ability != DRIFT]
    if abilities and not verdict.mean:
        names = listed([one.guard for one in abilities])
        return "inconclusive", f"no ability can be judged: at the reference {names} is not above chance"
    if same:
        return "pass", "nothing changed: every answer to the guards is that of the reference"
    open_ = [one for one in verdict.guards if one.verdict == "inconclusive"]
    mean = verdict.mean
    if not open_ and (mean is None or mean.verdict == "pass"):
        return "pass", _kept(verdict)
    doubts = [f"the rows do not tell whether {listed([one.guard for one in open_])} is kept"] if open_ else []
    if mean and mean.verdict != "pass":
        doubts.append(
            f"the mean of {counted(mean.guards)} is {bounds(mean.drop, mean.low, mean.high)}; "
            f"{points(mean.limit)} are accepted"
        )
    known = [one.more_items or 0 for one in open_] + [mean.more_items or 0 if mean else 0]
    if max(known):
        doubts.append(f"about {max(known):,} more rows of each would decide, if the drops stay as they are")
    return "inconclusive", "; ".join(doubts)


def _lost(one: GuardVerdict) -> str:
    if one.ability == DRIFT:
        return f"{one.guard}: the answers drifted {points(one.drop)} from the reference, at least {points(one.low)}"
    change_ = f"from {percent(one.before)} to {percent(one.now)}"
    return f"{one.guard} ({one.ability}) fell {change_}, at least {points(one.low)}"


def _rest(number: int) -> str:
    return f"; and {number} more" if number > 0 else ""


def _kept(verdict: GuardsVerdict) -> str:
    mean, worst = verdict.mean, verdict.worst
    if mean is None or worst is None:
        return "the answers are close to the reference's; no ability is guarded"
    most = f"at most {points(max(mean.high, 0.0))} lost in the mean of {counted(mean.guards)}"
    return f"{most}, at most {points(max(worst.high, 0.0))} in the worst, {worst.guard}"


def counted(guards: int) -> str:
    """Return a number of guards in words."""
    return "1 ability" if guards == 1 else f"{guards} abilities"
