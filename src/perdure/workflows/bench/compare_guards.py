"""Guards of a benchmark's runs: what the tasks of an arm did to each, and how two arms differ, row by row."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perdure.evaluate.blindness import is_blind
from perdure.ledger.records.guards_verdict import DRIFT
from perdure.maths.families import simultaneous_confidence
from perdure.maths.statistics import mean_interval, mean_of_means, paired_difference
from perdure.workflows.bench.comparison import Estimate, GuardChange, WorstGuard
from perdure.workflows.bench.guard_records import GuardScores, RunGuard, on_log_scale
from perdure.workflows.bench.records import FinishedRun

CONFIDENCE = 0.95
Numbers = NDArray[np.float64]


def guard_changes(runs: Sequence[FinishedRun]) -> dict[str, GuardChange]:
    """Return by name what the tasks changed of each guard: a row's score is its mean over the runs.

    Args:
        runs: The runs of one arm.
    """
    return {name: _change(_of(runs, name)) for name in _names(runs)}


def worst_guard(runs: Sequence[FinishedRun]) -> WorstGuard | None:
    """Return the ability that lost most, with an interval that holds for all abilities together; None without one.

    The largest of several noisy losses is too large on average, and so is its interval. With Bonferroni's correction, the
    interval of each of k guards has confidence 1 - .05 / k. Blind guards and drift are left out.

    Args:
        runs: The runs of one arm.
    """
    found = {name: _of(runs, name) for name in _names(runs)}
    seeing = {name: own for name, own in found.items() if own[0].ability != DRIFT and not _blind(own[0])}
    if not seeing:
        return None
    level = simultaneous_confidence(CONFIDENCE, len(seeing))
    changes = {name: _estimate(*_after_and_before(own), level) for name, own in seeing.items()}
    name = min(changes, key=lambda one: changes[one].value)
    return WorstGuard(name, changes[name].value, changes[name].low, changes[name].high, len(seeing))


def guards_minus(pairs: Sequence[tuple[FinishedRun, FinishedRun]]) -> dict[str, Estimate]:
    """Return by name what one arm scores on a guard after all tasks, less what another does, paired row by row.

    Args:
        pairs: Runs of both arms with the same seed, the subtracted one second.
    """
    found = {}
    for name in dict.fromkeys(name for pair in pairs for name in _names(pair)):
        both = [_of(pair, name) for pair in pairs if all(run.guards for run in pair)]
        if both:
            every = [guard for pair in both for guard in pair]
            rows, groups = _shared(every)
            mine, other = (_mean([_last(pair[side]) for pair in both], rows) for side in (0, 1))
            found[name] = _estimate(mine, other, groups)
    return found


def _blind(guard: RunGuard) -> bool:
    return is_blind(guard.ability, guard.base.items, guard.chance, groups=guard.groups)


def _change(guards: Sequence[RunGuard]) -> GuardChange:
    rows, groups = _shared(guards)
    after, before, _ = _after_and_before(guards)
    gap = _estimate(after, before, groups)
    stages = range(len(guards[0].stages))
    return GuardChange(
        ability=guards[0].ability,
        before=float(before.mean()),
        after=float(after.mean()),
        value=gap.value,
        low=gap.low,
        high=gap.high,
        n=gap.n,
        groups=len(set(groups)),
        blind=_blind(guards[0]),
        readings=_readings(guards, rows, groups),
        by_stage=tuple(_stage(guards, rows, groups, stage) for stage in stages),
    )


def _stage(guards: Sequence[RunGuard], rows: Sequence[str], groups: Sequence[str], stage: int) -> Estimate | None:
    """Return the mean score after a stage, which must have been scored in every run."""
    states = [guard.stages[stage] for guard in guards]
    if any(state is None for state in states):
        return None
    items = _mean([guard.by_row(state) for guard, state in zip(guards, states, strict=True) if state], rows)
    return Estimate(*mean_interval(items, groups=groups), len(rows))


def _readings(guards: Sequence[RunGuard], rows: Sequence[str], groups: Sequence[str]) -> dict[str, Estimate]:
    """Return the mean of each reading after the last stage; a reading is at least 0, and not limited to 1."""
    finals = [(guard, _final(guard)) for guard in guards]
    found = {}
    for name in finals[0][1].readings:
        values = _mean([guard.by_row(state, name) for guard, state in finals], rows)
        if groups:
            most = max(1.0, float(values.max()))
            value, low, high = mean_interval(values / most, groups=groups)
            found[name] = Estimate(most * value, most * low, most * high, len(rows))
        else:
            found[name] = Estimate(*mean_of_means([values], (-np.inf, np.inf)), len(rows))
    return found


def _estimate(a: Numbers, b: Numbers, groups: Sequence[str], confidence: float = CONFIDENCE) -> Estimate:
    return Estimate(*paired_difference(a, b, confidence, groups=groups), len(a))


def _after_and_before(guards: Sequence[RunGuard]) -> tuple[Numbers, Numbers, Sequence[str]]:
    """Return what the last and the base model score on each shared row, and the groups of the rows."""
    rows, groups = _shared(guards)
    before = _mean([guard.by_row(guard.base) for guard in guards], rows)
    return _mean([_last(guard) for guard in guards], rows), before, groups


def _last(guard: RunGuard) -> dict[str, float]:
    return guard.by_row(_final(guard))


def _final(guard: RunGuard) -> GuardScores:
    """Return the scores after the last stage, which every run has."""
    final = guard.stages[-1]
    if final is None:
        raise ValueError("a guard was not scored after the last task; every run scores it there")
    return final


def _mean(scores: Sequence[Mapping[str, float]], rows: Sequence[str]) -> Numbers:
    """Return the mean score of each row over the runs."""
    return np.array([np.mean([one[row] for one in scores]) for row in rows], dtype=np.float64)


def _shared(guards: Sequence[RunGuard]) -> tuple[list[str], list[str]]:
    """Return the rows that every run scored, and the group of each; no groups where no rows belong together."""
    first = guards[0]
    everywhere = set(first.rows).intersection(*(guard.rows for guard in guards))
    places = [place for place, row in enumerate(first.rows) if row in everywhere]
    return [first.rows[p] for p in places], [first.groups[p] for p in places] if first.groups else []


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the guards that every run has, in the order of the first."""
    return [name for name in runs[0].guards or {} if all(name in (run.guards or {}) for run in runs)]


def _of(runs: Sequence[FinishedRun], name: str) -> list[RunGuard]:
    return [on_log_scale(run.guards[name], run.model) for run in runs if run.guards]
