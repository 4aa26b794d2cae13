"""Readings of a checkup from scores: of one guard, of an ability with several guards, and of drift."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace

from perdure.core.keyed import seed_of
from perdure.evaluate.blindness import is_blind
from perdure.evaluate.scorers import SAME
from perdure.maths.families import mean_of_intervals
from perdure.maths.statistics import mean_interval, paired_difference
from perdure.workflows.checkup_records import Abilities, Change, DriftReadings, GuardReading, Reading
from perdure.workflows.guards.embedding import EMBEDDING, UNRELATED
from perdure.workflows.guards.groups import groups_of
from perdure.workflows.guards.kinds import by_kind
from perdure.workflows.guards.measure import MeasuredGuard

ABILITIES = {
    "instruction": "instruction_following",
    "commonsense": "commonsense_reasoning",
    "code": "code_generation",
    "maths": "mathematical_reasoning",
}
KNOWLEDGE = ("knowledge", "facts")
DRIFT = "drift"
DECLINES = "declines"


def guard_reading(measured: MeasuredGuard) -> GuardReading:
    """Return the reading of one guard; rows of one group are resampled together."""
    guard = measured.guard
    named = _groups(measured)
    now, before = measured.now, measured.before
    seed = seed_of("checkup", guard.name)
    value, low, high = mean_interval(now.items, seed=seed, groups=named)
    return GuardReading(
        base=before.score,
        now=value,
        low=low,
        high=high,
        change=Change(*paired_difference(now.items, before.items, seed=seed, groups=named)),
        n=now.n,
        blind=is_blind(guard.ability, before.items, guard.chance, groups=named),
        ability=guard.ability,
        groups=len(set(named)),
        seconds=measured.seconds,
        selected=guard.selection is not None,
        kept=_kept(measured, named, seed) if guard.ability in KNOWLEDGE else None,
        kinds=by_kind(named, before.items, now.items) if guard.ability != DRIFT else (),
    )


def _groups(measured: MeasuredGuard) -> tuple[str, ...]:
    """Return the group of each row; nothing where each row is one by itself."""
    groups = groups_of(measured.rows)
    return groups if len(set(groups)) < len(groups) else ()


def _kept(measured: MeasuredGuard, groups: Sequence[str], seed: int) -> Reading | None:
    """Return the reading over the rows that the reference answered rightly; None of graded answers, and without such a row."""
    before, now = measured.before.items, measured.now.items
    known = [i for i, item in enumerate(before) if item == 1]
    if not known or not {*before, *now} <= {0.0, 1.0}:
        return None
    own = [groups[i] for i in known] if groups else []
    value, low, high = mean_interval([now[i] for i in known], seed=seed, groups=own)
    return Reading(base=1.0, now=value, low=low, high=high, n=len(known))


def abilities(guards: Mapping[str, GuardReading]) -> Abilities:
    """Return the reading of each ability of a base model."""
    found = by_ability(guards)
    return Abilities(**{key: found.get(ability) for ability, key in ABILITIES.items()})


def knowledge(guards: Mapping[str, GuardReading]) -> Reading | None:
    """Return the reading of knowledge and facts together; None without such guards."""
    return together([one for one in guards.values() if one.ability in KNOWLEDGE])


def others(guards: Mapping[str, GuardReading]) -> dict[str, Reading]:
    """Return the reading of each further ability."""
    known = (*ABILITIES, *KNOWLEDGE, DRIFT)
    return {ability: one for ability, one in by_ability(guards).items() if ability not in known}


def by_ability(guards: Mapping[str, GuardReading]) -> dict[str, Reading]:
    """Return a reading for each ability: the mean over its guards, each guard with the same weight."""
    names = dict.fromkeys(one.ability for one in guards.values())
    pairs = {name: together([one for one in guards.values() if one.ability == name]) for name in names}
    return {name: one for name, one in pairs.items() if one is not None}


def together(guards: Sequence[GuardReading]) -> Reading | None:
    """Return the mean of some guards; None without any.

    Guards of selected rows, whose level is that of no benchmark, are left out unless there are no others; of these, so are blind
    ones unless all of them are blind.
    """
    usual = [one for one in guards if not one.selected] or list(guards)
    seen = [one for one in usual if not one.blind] or usual
    if not seen:
        return None
    now, low, high = mean_of_intervals([(one.now, one.low, one.high) for one in seen])
    changes = [one.change for one in seen if one.change]
    change = None
    if len(changes) == len(seen):
        change = Change(*mean_of_intervals([(one.mean, one.low, one.high) for one in changes]))
    bases = [one.base for one in seen if one.base is not None]
    return Reading(
        base=sum(bases) / len(bases) if len(bases) == len(seen) else None,
        now=now,
        low=low,
        high=high,
        n=sum(one.n for one in seen),
        blind=all(one.blind for one in seen),
        selected=all(one.selected for one in seen),
        change=change,
    )


def main_drift(measured: Iterable[MeasuredGuard]) -> MeasuredGuard | None:
    """Return the first guard of the ability "drift" that compares with the answers of a reference; None without one."""
    return next((one for one in measured if one.now.scorer == SAME and one.guard.ability == DRIFT), None)


def drift(measured: Collection[MeasuredGuard], judged: Sequence[float] = ()) -> DriftReadings:
    """Return the drift readings, of `main_drift`; `declines` of a guard with the scorer "declines".

    Args:
        measured: The guards.
        judged: What a judge made of each answer of `main_drift`; empty where none was asked.
    """
    main = main_drift(measured)
    refusals = next((one for one in measured if one.now.scorer == DECLINES), None)
    names = [field.name for field in fields(DriftReadings)]
    found = {name: _drift_reading(name, main) for name in names} if main else {}
    # without such a guard there is only what the reference declines, which no prompt of a drift guard is made for
    found[DECLINES] = (
        _reading(DECLINES, refusals.before.items, refusals.now.items, _groups(refusals)) if refusals else None
    )
    if main and EMBEDDING in main.now.readings:
        found[EMBEDDING] = _embedding_reading(main)
    if judged:
        found["judge"] = _judge_reading(judged, _groups(main) if main else ())
    return DriftReadings(**found)


def _embedding_reading(main: MeasuredGuard) -> Reading:
    """Return how alike answers are to the reference's; the reference's own are 1."""
    items, unrelated = main.now.readings[EMBEDDING], main.now.readings[UNRELATED]
    return replace(
        _reading(EMBEDDING, [1.0] * len(items), items, _groups(main)), unrelated=sum(unrelated) / len(unrelated)
    )


def _judge_reading(items: Sequence[float], groups: Sequence[str]) -> Reading:
    """Return the share of answers that a judge prefers, a tie counted half; the reference against itself is .5."""
    return _reading("judge", [0.5] * len(items), items, groups)


def _drift_reading(name: str, main: MeasuredGuard) -> Reading | None:
    then, items = (score.items if name == "same" else score.readings.get(name) for score in (main.before, main.now))
    return None if items is None or then is None else _reading(name, then, items, _groups(main))


def _reading(name: str, then: Sequence[float], items: Sequence[float], groups: Sequence[str]) -> Reading:
    largest = max(1.0, *items, *then)  # nats have no upper limit, and intervals are of items in [0, 1]
    first, second = ([value / largest for value in values] for values in (then, items))
    seed = seed_of("checkup", name)
    value, low, high = (one * largest for one in mean_interval(second, seed=seed, groups=groups))
    change = Change(*(one * largest for one in paired_difference(second, first, seed=seed, groups=groups)))
    return Reading(base=sum(then) / len(then), now=value, low=low, high=high, n=len(items), change=change)
