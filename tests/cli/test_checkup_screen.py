"""The screen of a checkup, whole."""

from perdure.cli.checkup_screen import checkup_screen
from perdure.ledger.records import GuardsVerdict, GuardVerdict, MeanDrop, Verdict, WorstDrop
from perdure.workflows.checkup.cost import decided_with
from perdure.workflows.checkup_records import (
    Abilities,
    Change,
    Checkup,
    Cost,
    DriftReadings,
    GuardReading,
    Reading,
    TaskReading,
)
from perdure.workflows.guards.kinds import KindChange

SCREEN = """\
checkup of head against base, budget quick
gate: FAIL: instructions lost 12.5 points

1 tasks      bank  91.1 when learned, 31.1 now (-60.0)  (21.0 to 43.0)  n 90
             ACC 57.0  BWT -51.1
2 abilities  commonsense  piqa          60.0 -> 60.0  +0.0 (-6.5 to +6.5)  n 100  inconclusive
             instruction  instructions  34.2 -> 21.7  -12.5 (-19.8 to -5.6)  n 120 in 40 groups  FAIL  against 0123456789ab
               json keys    100.0 ->   0.0  3 lost, 0 gained of 3
               few words      0.0 -> 100.0  0 lost, 3 gained of 3
               quotation 0   66.7 ->   0.0  2 lost, 0 gained of 3
               quotation 1   66.7 ->   0.0  2 lost, 0 gained of 3
               quotation 2   66.7 ->   0.0  2 lost, 0 gained of 3
               quotation 3   66.7 ->   0.0  2 lost, 0 gained of 3
               of the other kinds 1 more changed, 33 did not change
3 facts      facts      facts  41.3 -> 38.0  -3.3 (-8.0 to +1.0)  n 150  inconclusive; of 62 known before, 95.2 kept (9.0 to 99.0)
             knowledge  mmlu   blind: 30.0 is no better than chance or nothing, so that no fall can be seen  n 100
4 drift      same      1.00 -> 0.75 (0.70 to 0.80)  n 60
             kl        1.02 nats a token (0.90 to 1.10)  n 60

mean of 3 abilities -6.2 (-10.0 to -2.0); worst instructions -12.5 (-21.0 to -4.0, all together)
what to do: rehearse general rows

cost: 3 min, 1,043 items; --budget standard would take about 11 min more; \
if the changes stay as they are, it decides piqa, the mean"""


def reading(base, now, change, n, ability, **more):
    """A guard in points; the change with its interval."""
    about = {"low": 0.0, "high": 1.0, "change": Change(*(one / 100 for one in change)), "ability": ability, **more}
    return GuardReading(base=base / 100, now=now / 100, n=n, **about)


def judged(name, ability, verdict, n, more_items=None):
    numbers = {"before": 0.5, "now": 0.5, "drop": 0.0, "low": -0.1, "high": 0.11, "tolerance": 0.03, "limit": 0.1}
    return GuardVerdict(
        guard=name, ability=ability, verdict=verdict, n=n, more_items=more_items, budget="quick", reason="", **numbers
    )


GUARDS = GuardsVerdict(
    verdict="fail",
    enforced=True,
    reason="instructions lost 12.5 points",
    guards=(
        judged("instructions", "instruction", "fail", 120),
        judged("piqa", "commonsense", "inconclusive", 100, more_items=250),
        judged("facts", "facts", "inconclusive", 150, more_items=4000),
        judged("habits", "drift", "inconclusive", 60, more_items=900),
        judged("mmlu", "knowledge", "blind", 100),
    ),
    mean=MeanDrop("inconclusive", 0.062, 0.02, 0.10, 0.03, 3, 200),
    worst=WorstDrop("instructions", 0.125, 0.04, 0.21, 3),
    advice=("rehearse general rows",),
)
KINDS = (
    KindChange("json keys", 3, 1.0, 0.0, 0, 3),
    KindChange("few words", 3, 0.0, 1.0, 3, 0),
    *(KindChange(f"quotation {i}", 3, 2 / 3, 0.0, 0, 2) for i in range(5)),
    *(KindChange(f"still {i}", 3, 1.0, 1.0, 0, 0) for i in range(33)),
)
STANDARD = {"instructions": 480, "piqa": 400, "facts": 400, "habits": 60, "mmlu": 400}


def test_the_whole_screen() -> None:
    known = Reading(base=1.0, now=0.952, low=0.09, high=0.99, n=62)
    checkup = Checkup(
        ref="head",
        against="base",
        tasks={
            "banking": TaskReading(base=0.1, learned=0.911, now=0.311, low=0.21, high=0.43, n=90),
        },
        pretraining_abilities=Abilities(),
        knowledge_retention=None,
        instruction_drift=DriftReadings(
            same=Reading(base=1.0, now=0.75, low=0.70, high=0.80, n=60),
            kl=Reading(base=0.0, now=1.02, low=0.90, high=1.10, n=60),
        ),
        guards={
            "piqa": reading(60, 60, (0, -6.5, 6.5), 100, "commonsense"),
            "instructions": reading(
                34.2,
                21.7,
                (-12.5, -19.8, -5.6),
                120,
                "instruction",
                groups=40,
                reference="0123456789abcdef",
                kinds=KINDS,
            ),
            "facts": reading(41.3, 38, (-3.3, -8, 1), 150, "facts", kept=known),
            "mmlu": reading(30, 31, (1, -5, 7), 100, "knowledge", blind=True),
        },
        gate=Verdict("fail", 0.03, 0.95, False, "instructions lost 12.5 points", (), None, guards=GUARDS),
        cost=Cost(181.2, 1043, "standard", 660.0, decided_with(GUARDS, STANDARD)),
        budget="quick",
        metrics={"acc": 0.57, "bwt": -0.511},
    )
    assert checkup_screen(checkup, {"banking": "bank"}) == SCREEN


def test_what_a_larger_budget_decides_are_the_guards_that_get_the_rows_they_need() -> None:
    assert decided_with(GUARDS, STANDARD) == ("piqa", "mean")
    assert decided_with(GUARDS, {**STANDARD, "piqa": 200}) == ()  # the mean needs 200 more rows of each that can fall
    assert decided_with(GUARDS, {**STANDARD, "facts": 5000, "habits": 1000}) == ("piqa", "facts", "habits", "mean")
    assert decided_with(None, STANDARD) == ()
