"""What a report draws of guards: how drift and abilities went on over the stages, and the answers that changed most."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from perdure.evaluate.blindness import is_blind
from perdure.evaluate.scorers import SAME
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Gate, Guard, Score
from perdure.ledger.records.guards_verdict import DRIFT
from perdure.maths.families import mean_of_intervals, simultaneous_confidence
from perdure.maths.statistics import Interval, mean_interval, paired_difference
from perdure.workflows.guards.columns import guard_scores
from perdure.workflows.guards.drift import question_of
from perdure.workflows.guards.embedding import EMBEDDING, UNRELATED
from perdure.workflows.guards.groups import grouped_interval, groups_of_score
from perdure.workflows.guards.kinds import by_kind
from perdure.workflows.inspect.report_records import Band, DriftedAnswer, GuardKinds, GuardPanel, GuardReport

ANSWERS = 10  # of those that changed most
LENGTH = "length"


@dataclass(frozen=True)
class _Measured:
    """A guard with its score at each stage, over the same rows; None where it was not measured."""

    guard: Guard
    scores: Sequence[Score | None]
    before: Score
    groups: tuple[str, ...]  # of the rows; empty where rows are independent

    @property
    def blind(self) -> bool:
        return is_blind(self.guard.ability, self.before.items, self.guard.chance, groups=self.groups)

    def levels(self) -> tuple[Band | None, ...]:
        """Return the score at each stage that has it, with its two-sided interval."""
        return tuple(Band(*grouped_interval(score, self.groups)) if score else None for score in self.scores)

    def readings(self, name: str) -> tuple[Band | None, ...]:
        """Return the mean of a reading at each stage that has it, with its two-sided interval."""
        values = [score and score.readings.get(name) for score in self.scores]
        return tuple(Band(*mean_interval(items, groups=self.groups)) if items else None for items in values)

    def change(self, stage: int, confidence: float = 0.95) -> Interval | None:
        """Return the score at a stage minus that of the reference, with its two-sided interval."""
        score = self.scores[stage]
        return (
            None if score is None else paired_difference(score.items, self.before.items, confidence, groups=self.groups)
        )


def guard_report(ledger: Ledger, stages: Sequence[Entry]) -> GuardReport | None:
    """Return what a report draws of guards; None where no guard was measured at any stage.

    Args:
        ledger: The ledger.
        stages: The entries that led to head, the base first.
    """
    measured = [one for guard in ledger.guards() if (one := _measured(ledger, guard, stages)) is not None]
    if not measured:
        return None
    gate = Gate()
    drifts = [one for one in measured if one.guard.ability == DRIFT]
    abilities = [one for one in measured if one.guard.ability != DRIFT and not one.blind]
    panels = [panel for one in drifts[:1] for panel in _drift_panels(one, gate)]
    if abilities:
        panels += _ability_panels(abilities, len(stages), gate)
    drifted = _drifted(ledger, drifts[0]) if drifts else ()
    kinds = [found for one in abilities if (found := _kinds(one)) is not None]
    return GuardReport(tuple(panels), drifted, tuple(kinds))


def _kinds(one: _Measured) -> GuardKinds | None:
    """Return what each group of a guard's rows gained and lost at head; None without groups, or where head was not measured."""
    now = one.scores[-1]
    found = by_kind(one.groups, one.before.items, now.items) if now else ()
    return GuardKinds(one.guard.name, found) if found else None


def _measured(ledger: Ledger, guard: Guard, stages: Sequence[Entry]) -> _Measured | None:
    reference = ledger.entry(guard.reference)
    before, *scores = guard_scores(ledger, guard, [reference, *stages])
    known = any(score is not None for score in scores)
    if before is None or not known:
        return None
    return _Measured(guard, scores, before, groups_of_score(ledger, guard, before))


def _drift_panels(one: _Measured, gate: Gate) -> list[GuardPanel]:
    limit = gate.tolerances.get(one.guard.name, gate.drift)
    panels = [
        GuardPanel(
            title=f"{one.guard.name}: sameness with the reference",
            values=one.levels(),
            rules=(1 - limit, 1 - limit / 2),
            unit="share",
        )
    ]
    if LENGTH in one.before.readings:
        title = f"{one.guard.name}: length of answers, the shorter by the longer"
        panels.append(GuardPanel(title, one.readings(LENGTH), (), "share"))
    meant = [score.readings if score and EMBEDDING in score.readings else None for score in one.scores]
    if any(meant):
        floor = next(fmean(found[UNRELATED]) for found in reversed(meant) if found)
        title = f"{one.guard.name}: meaning of answers by embedding, below the line that of other prompts"
        panels.append(GuardPanel(title, one.readings(EMBEDDING), (floor,), "share"))
    return panels


def _ability_panels(abilities: Sequence[_Measured], stages: int, gate: Gate) -> list[GuardPanel]:
    """Return the mean change of the abilities over the stages, and the worst change with bounds that hold for all."""
    together = simultaneous_confidence(0.95, len(abilities))
    mean: list[Band | None] = []
    worst: list[Band | None] = []
    for stage in range(stages):
        changes = [change for one in abilities if (change := one.change(stage)) is not None]
        if len(changes) < len(abilities):  # a mean over some of them would be another quantity
            mean.append(None)
            worst.append(None)
            continue
        mean.append(Band(*mean_of_intervals(changes)))
        lost = abilities[min(range(len(changes)), key=lambda k: changes[k][0])]
        change = lost.change(stage, together)
        worst.append(Band(*change, note=lost.guard.name) if change else None)
    count = "1 ability" if len(abilities) == 1 else f"{len(abilities)} abilities"
    return [
        GuardPanel(f"mean change of {count}", tuple(mean), (-gate.mean_drop,), "points"),
        GuardPanel("worst change of an ability", tuple(worst), (-gate.worst_drop,), "points"),
    ]


def _drifted(ledger: Ledger, one: _Measured) -> tuple[DriftedAnswer, ...]:
    """Return the answers at head that are furthest from the reference's, the furthest first."""
    now = one.scores[-1]
    if now is None or now.scorer != SAME:
        return ()
    rows = {row.hash: row for row in ledger.task_rows(one.guard.version, "test")}
    before = dict(zip(one.before.rows, one.before.predictions, strict=True))
    order = sorted(range(now.n), key=lambda i: (now.items[i], now.rows[i]))
    changed = [i for i in order if now.rows[i] in rows and now.predictions[i] != before.get(now.rows[i])]
    return tuple(
        DriftedAnswer(question_of(rows[now.rows[i]]), before[now.rows[i]], now.predictions[i], now.items[i])
        for i in changed[:ANSWERS]
    )
